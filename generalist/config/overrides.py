"""Overrides such as `mixing.interval=3`: one dotted path of a tree of plain values is set."""

import re
from typing import Any

import yaml

from generalist.config.plain_yaml import parse_plain
from generalist.config.tuning import Choices, Range
from generalist.errors import BadInput


def set_path(tree: Any, override: str) -> None:
    """Set one dotted path; list elements by number, maps made on the way, keys that are dotted themselves as a whole.

    Raises:
        BadInput: it is no `path=value`, or nothing can lie there.
    """
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise BadInput(f"override '{override}' is not of the form section.key=value, such as mixing.interval=3")
    try:
        value = parse_plain(text)
    except yaml.YAMLError:
        raise BadInput(f"override '{override}': the value is not YAML, such as 3, 8/255 or [crop, flip]") from None
    place, done = tree, 0
    while True:
        above = ".".join(keys[:done]) or "the top"
        if isinstance(place, list):
            if not keys[done].isdecimal() or int(keys[done]) >= len(place):
                raise BadInput(f"override '{override}': {above} is a list of {len(place)}; number its elements from 0")
            slot: Any = int(keys[done])
            done += 1
        elif isinstance(place, dict):
            slot = _key(keys[done:], above)
            done += slot.count(".") + 1
        else:
            raise BadInput(f"override '{override}': {above} is a single value and has no key '{keys[done]}'")
        if done == len(keys):
            place[slot] = value
            return
        if isinstance(place, dict) and place.get(slot) is None:
            place[slot] = {}
        place = place[slot]


def _key(keys: list[str], above: str) -> str:
    """Return the key of a map that the next parts of a path mean: one of them, or a dotted path to what lies in it."""
    if not _DOTTED.fullmatch(above):
        return keys[0]
    inside = (
        place for place, key in enumerate(keys) if place and key in _OF_DIMENSIONS and not above.endswith(".when")
    )
    return ".".join(keys[: next(inside, None)])


_DOTTED = re.compile(r"tuning\.space(\..*\.when)?")
"""Maps whose keys are dotted paths: dimensions, and what they depend on."""

_OF_DIMENSIONS = Choices.model_fields | Range.model_fields
