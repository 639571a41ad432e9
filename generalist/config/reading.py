"""From YAML, a preset and dotted overrides to a checked configuration, and back."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import ValidationError

from generalist.config.overrides import set_path
from generalist.config.plain_yaml import read_plain
from generalist.config.presets import preset_path, read_preset
from generalist.config.renamed import renamed
from generalist.config.section import nearest
from generalist.config.tree import Config
from generalist.config.tuning import TuningOptions
from generalist.errors import BadInput


def load(
    path: Path | str | None = None,
    *,
    preset: str | None = None,
    overrides: Iterable[str] = (),
) -> Config:
    """Read a configuration file, or a preset, apply overrides such as `mixing.interval=3`, and check the whole.

    Raises:
        BadInput: the file is missing or not YAML, or a key, value or combination is wrong.
    """
    if (path is None) == (preset is None):
        raise TypeError("give either a path or a preset")
    if preset is not None:
        path = preset_path(preset)
        return _changed(read_preset(path), overrides, path.name)
    path = Path(str(path))
    tree = read_plain(path)
    if isinstance(tree, Mapping) and "base" in tree:
        raise BadInput(
            f"{path.name}: only a preset has a base: give it by --preset, or write all of it to params.yaml by"
            " `generalist config use`"
        )
    return _changed(tree, overrides, path.name)


def with_overrides(config: Config, overrides: Iterable[str]) -> Config:
    """Return a configuration with some keys changed.

    Raises:
        BadInput: a key, value or combination is wrong.
    """
    return _changed(config.model_dump(mode="json"), overrides, "configuration")


def _changed(tree: Any, overrides: Iterable[str], where: str) -> Config:
    overrides = tuple(overrides)
    for override in overrides:
        set_path(tree, override)
    return check(tree, where, overrides=overrides)


def check(tree: Any, where: str = "configuration", *, overrides: Sequence[str] = ()) -> Config:
    """Check a tree of plain values.

    Args:
        tree: of maps, lists and scalars.
        where: it is from.
        overrides: what was changed in it.

    Raises:
        BadInput: with one sentence for each mistake, opened by `where`, or by the override that made it.
    """
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        sentences = _sentences(error, tree)
        raise BadInput(
            "\n".join(f"{_blamed(sentence, where, overrides)}: {sentence}" for sentence in sentences)
        ) from None


def _blamed(sentence: str, where: str, overrides: Sequence[str]) -> str:
    """Return what made a mistake: the last override of that key, of a section around it or in it; else the file."""
    place = re.split(r":| is ", sentence, maxsplit=1)[0] + "."
    if unknown := re.search(r"unknown key '([^']*)'", sentence):
        place += f"{unknown[1]}."
    known = not unknown and renamed(place.rstrip(".")) is None  # inside of an unknown key nothing else is wrong
    for override in reversed(overrides):
        key = override.partition("=")[0].strip() + "."
        if place.startswith(key) or (not known and key.startswith(place)):
            return f"override '{override}'"
    return where


def to_yaml(config: Config) -> str:
    """Return the whole tree with every default written out; it reads back as the same configuration."""
    text: str = yaml.safe_dump(config.model_dump(mode="python"), sort_keys=False, allow_unicode=True, width=100)
    return text


def params_digest(config: Config) -> str:
    """Return the SHA-256 (hex) of all that a model and its evaluation depend on, however it is written."""
    return digest(effective_params(config))


def effective_params(config: Config) -> Any:
    """Return plain values of all that a model and its evaluation depend on."""
    tree = canonical(config)
    for section, keys in _WITHOUT_EFFECT.items():
        for key in keys:
            del tree[section][key]
    return tree


_WITHOUT_EFFECT = {
    "training": ("checkpoint_minutes", "images", "processes"),
    "evaluation": ("batch_size", "shards"),
    "tuning": tuple(TuningOptions.model_fields),
}
"""Options that say how something is computed, without an effect on its bits, or that no single training knows."""


def canonical(section: Any, progress: NDArray[np.float64] | None = None) -> Any:
    """Return plain values of a section, every number as its value: `8/255` and 0.03137… are the same.

    Args:
        section: any part of the tree.
        progress: where schedules are asked for their values, float64 [steps] in [0, 1]; without it they are knots.
    """
    return section.model_dump(mode="json", context={"canonical": True, "progress": progress})


def digest(value: Any) -> str:
    """Return the SHA-256 (hex) of plain values: keys sorted, numbers in their shortest exact form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def flatten(config: Config) -> dict[str, str]:
    """Return values as shown to people by their dotted paths, for tables and trackers."""
    return {path: str(value) for path, value in leaves(config.model_dump(mode="json"))}


def leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of plain values by their dotted paths."""
    if isinstance(tree, Mapping):
        for key, inner in tree.items():
            yield from leaves(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree


def _sentences(error: ValidationError, tree: Any, prefix: tuple[str | int, ...] = ()) -> list[str]:
    sentences: list[str] = []
    details = error.errors(include_url=False)
    for detail in details:
        if detail["type"] == "too_short" and len(details) > 1:
            continue  # pydantic counts the valid elements: a list with one wrong element looks empty to it
        where, value = _place((*prefix, *detail["loc"]), tree)
        inner = detail.get("ctx", {}).get("error")
        if isinstance(inner, ValidationError):  # the options of a plug-in, checked by its own class
            sentences += _sentences(inner, tree, tuple(where))
            continue
        path = ".".join(map(str, where))
        message = detail["msg"].removeprefix("Value error, ")
        unknown = re.match(r"unknown key '([^']*)'", message)
        if unknown and (now := renamed(f"{path}.{unknown[1]}".lstrip("."))):
            sentences.append(now)
        elif detail["type"] == "union_tag_invalid":
            known = [name.strip(" '") for name in detail["ctx"]["expected_tags"].split(",")]
            sentences.append(f"{path}: unknown name '{detail['ctx']['tag']}'; {nearest(detail['ctx']['tag'], known)}")
        elif detail["type"] == "union_tag_not_found":
            sentences.append(f"{path}: 'name' is missing: it says which one is meant")
        elif detail["type"] == "value_error" or not path:  # told in whole by a validator of ours
            sentences.append(f"{path}: {message}" if path else message)
        else:
            message = message[:1].lower() + message[1:]
            sentences.append(f"{path} is {_short(value)}, but {message.replace('input should', 'it should')}")
    return list(dict.fromkeys(sentences))


def _place(loc: tuple[str | int, ...], tree: Any) -> tuple[list[str | int], Any]:
    """Return the part of an error's location that is in the file: pydantic's has the tags of unions, too."""
    path: list[str | int] = []
    for key in loc:
        known = tree if isinstance(tree, Mapping) else dict(enumerate(tree)) if isinstance(tree, list | tuple) else {}
        if key in known:
            path.append(key)
            tree = known[key]
    return path, tree


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
