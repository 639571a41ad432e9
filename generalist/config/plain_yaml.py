"""YAML from outside: plain values, within limits that no configuration comes near."""

from copy import deepcopy
from functools import lru_cache
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
        return deepcopy(_parsed(text))
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
    return yaml.load(text, _Loader)  # noqa: S506  a SafeLoader


@lru_cache(maxsize=64)
def _parsed(text: str) -> Any:
    """Turn a file's text into plain values, which nobody writes to: the same few files are read again and again."""
    return parse_plain(text)


class _Limits:
    """What a stream of YAML may hold, watched while it is read: before anything is built of it."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}  # values behind each anchor
        self._open: list[tuple[str | None, int]] = []  # the anchor of each collection around, and the values before it
        self._count = 0

    def check(self, event: yaml.Event) -> None:
        """Count an event in, or refuse it."""
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._known:
                raise _wrong(event, f"alias '{event.anchor}' stands for what it is in, or for nothing")
            self._count += self._known[event.anchor]
        elif isinstance(event, yaml.NodeEvent):
            if (tag := getattr(event, "tag", None)) is not None:
                raise _wrong(event, f"tag {tag} is not taken, as plain values need none")
            self._count += 1
            if isinstance(event, yaml.CollectionStartEvent):
                self._open.append((event.anchor, self._count - 1))
            elif event.anchor is not None:
                self._known[event.anchor] = 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = self._open.pop()
            if anchor is not None:
                self._known[anchor] = self._count - before
        if len(self._open) > DEEPEST:
            raise _wrong(event, f"more than {DEEPEST} sections lie in each other")
        if self._count > MOST:
            raise _wrong(event, f"there are more than {MOST:,} values")


def _wrong(place: yaml.Event | yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    mark: Any = place.start_mark
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


class _Loader(yaml.SafeLoader):
    """Plain values without silent surprises: a key given twice is an error, and a date is text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._limits = _Limits()

    def get_event(self) -> yaml.Event:
        event: yaml.Event = super().get_event()  # type: ignore[no-untyped-call]  # PyYAML's stubs have no types here
        self._limits.check(event)
        return event

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
