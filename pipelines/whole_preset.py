"""A preset as a whole `params.yaml`, in which DVC finds every option: what it states, what it takes, all comments."""

import io
import re

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import RoundTripRepresenter

from generalist.config import load, preset_path, to_yaml
from generalist.config.plain_yaml import read_plain
from generalist.config.presets import base_of, lay_over


def whole_preset(name: str) -> str:
    """Return the text of a preset with every option of its base and every default written out.

    Raises:
        BadInput: there is no such preset, or it is wrong.
    """
    config = load(preset=name)
    path = preset_path(name)
    text = path.read_text(encoding="utf-8")
    base = base_of(read_plain(path), path.name)
    if base is None:
        return text
    header, preset = _parsed(text)
    _, tree = _parsed(base.read_text(encoding="utf-8"))
    example = next(iter(tree["experts"].values()))
    lay_over(tree, preset)
    _take_comments(tree, preset)
    _write_out_defaults(tree, _parsed(to_yaml(config))[1])
    for expert in preset.get("experts", {}).values():
        for key in example.ca.items.keys() - expert.ca.items.keys():
            expert.ca.items[key] = example.ca.items[key]
    return header + _written(tree)


def _parsed(text: str) -> tuple[str, CommentedMap]:
    """Return the comment on top, and what is below."""
    header = "".join(re.findall(r"\A(?:#.*\n|\n)*", text))
    return header, _yaml().load(re.sub(r"\n\n+", "\n", text.removeprefix(header)))


def _take_comments(tree: CommentedMap, preset: CommentedMap) -> None:
    """Let a key that the preset comments have that comment, at the top and in sections that were merged."""
    for key, value in preset.items():
        if key in preset.ca.items:
            tree.ca.items[key] = preset.ca.items[key]
        if isinstance(value, CommentedMap):
            tree[key].ca.items.update(value.ca.items)


def _write_out_defaults(tree: CommentedMap, whole: CommentedMap) -> None:
    for place, (key, value) in enumerate(whole.items()):
        if key not in tree:
            tree.insert(min(place, len(tree)), key, value)
        elif isinstance(tree[key], CommentedMap) and isinstance(value, CommentedMap):
            _write_out_defaults(tree[key], value)


def _written(tree: CommentedMap) -> str:
    """Return a tree's text, with an empty line before each section."""
    stream = io.StringIO()
    _yaml().dump(tree, stream)
    return re.sub(r"\n(?=\w)", "\n\n", stream.getvalue())


class _Representer(RoundTripRepresenter):
    """Writes null as the presets do."""

    def represent_none(self, data: None) -> ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:null", "null")


_Representer.add_representer(type(None), _Representer.represent_none)


def _yaml() -> YAML:
    yaml = YAML()
    yaml.Representer = _Representer
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 10_000
    return yaml
