"""YAML from outside: plain values, within limits that no configuration comes near."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from generalist.errors import BadInput
from generalist.untrusted import read

LARGEST = 2**20
"""Bytes of a file."""
DEEPEST = 40
"""Sections in each other."""
MOST = 100_000
"""Values, those behind aliases counted as often as they stand for."""
LONGEST = 64
"""Characters of a number."""


def read_plain(path: Path) -> Any:
    """Read a file of plain values.

    Raises:
        BadInput: it is no regular file, too large, not UTF-8, not YAML, or more than plain values within limits.
    """
    try:
        text = read(path, most=LARGEST).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise BadInput(f"{path} can't be read: {reason}; name a YAML file such as params.yaml") from None
    try:
        return parse_plain(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise BadInput(f"{path.name}, line {line}: {error.problem or error.context}; mend the YAML there") from None
    except yaml.YAMLError as error:
        raise BadInput(f"{path.name} is not YAML: {' '.join(str(error).split())}") from None


def parse_plain(text: str) -> Any:
    """Turn YAML into plain values.

    Raises:
        yaml.YAMLError: it is none, or goes beyond the limits.
    """
    _check_limits(yaml.parse(text, Loader=_Loader))
    return yaml.load(text, _Loader)  # noqa: S506  a SafeLoader


def _check_limits(events: Iterator[yaml.Event]) -> None:
    """Look at the stream before anything is built of it."""
    known: dict[str, int] = {}  # values behind each anchor
    open_: list[tuple[str | None, int]] = []  # the anchor of each collection around, and the values before it
    count = 0
    for event in events:
        if isinstance(event, yaml.NodeEvent):
            if isinstance(event, yaml.AliasEvent):
                if event.anchor not in known:
                    raise _wrong(event, f"alias '{event.anchor}' stands for what it is in, or for nothing")
                count += known[event.anchor]
                continue
            if (tag := getattr(event, "tag", None)) is not None:
                raise _wrong(event, f"tag {tag} is not taken, as plain values need none")
            count += 1
            if isinstance(event, yaml.CollectionStartEvent):
                open_.append((event.anchor, count - 1))
            elif event.anchor is not None:
                known[event.anchor] = 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_.pop()
            if anchor is not None:
                known[anchor] = count - before
        if len(open_) > DEEPEST:
            raise _wrong(event, f"more than {DEEPEST} sections lie in each other")
        if count > MOST:
            raise _wrong(event, f"there are more than {MOST:,} values")


def _wrong(place: yaml.Event | yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    mark: Any = place.start_mark
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


class _Loader(yaml.SafeLoader):
    """Plain values without silent surprises: a key given twice is an error, and a date is text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        written = [key for key, _ in node.value if not key.tag.endswith(":merge")]  # others may be merged below them
        keys = [self.construct_object(key, deep=True) for key in written]
        if any(isinstance(key, dict | list | set) for key in keys):
            raise _wrong(node, "a key is a section or a list")
        twice = next((key for index, key in enumerate(keys) if key in keys[:index]), None)
        if twice is not None:
            raise _wrong(node, f"key '{twice}' is given twice")
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        if isinstance(node, yaml.MappingNode):
            raise _wrong(node, "a section stands where a value belongs")
        if node.tag.endswith((":int", ":float")) and len(node.value) > LONGEST:
            raise _wrong(node, f"a number has {len(node.value):,} characters")
        if any("\ud800" <= character <= "\udfff" for character in node.value):
            raise _wrong(node, "half of a surrogate pair is no character")
        return super().construct_scalar(node)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if not tag.endswith(":timestamp")]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
