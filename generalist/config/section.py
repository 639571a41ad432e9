"""Sections of the tree: frozen, strict, and helpful about a misspelt key."""

import difflib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, model_validator

Kind = TypeVar("Kind")


class Section(BaseModel):
    """One section of the configuration: unknown keys are refused, with the nearest known one named."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_and_missing_keys(cls, written: Any) -> Any:
        if not isinstance(written, Mapping):
            return written
        known = list(cls.model_fields)
        for key in written:
            if key not in cls.model_fields:
                raise ValueError(f"unknown key '{key}'; {nearest(str(key), known)}")
        for key, field in cls.model_fields.items():
            if field.is_required() and key not in written:
                raise ValueError(f"'{key}' is missing: {field.description or 'add it'}")
        return written


def nearest(word: str, known: list[str]) -> str:
    """Return a hint for a word that is not among `known`: the closest one, or all of them."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"known here: {', '.join(sorted(known))}"


class Plugin(Section):
    """Options and behaviour of one exchangeable part, found by its `name`.

    The part called `trades` of kind `objectives` is the one class that the file
    `generalist/objectives/trades.py` defines; a new method is one new file.
    """

    name: str


def part_names(kind: str) -> list[str]:
    """Return the names of the parts of a kind, a dotted path below `generalist` (`objectives`, `data.sources`)."""
    return sorted(path.stem for path in _folder(kind).glob("*.py") if path.stem not in _NO_PARTS)


def is_part(kind: str, name: str) -> bool:
    """Return whether there is a part of that name."""
    return name.isidentifier() and name not in _NO_PARTS and (_folder(kind) / f"{name}.py").is_file()


def _folder(kind: str) -> Path:
    return Path(__file__).parent.parent.joinpath(*kind.split("."))


_NO_PARTS = ("__init__", "contract", "attacked", "threat")


def part(kind: str, name: str, base: type[Kind]) -> type[Kind]:
    """Return the one class of a kind that the file of this name defines; no other file is imported.

    Raises:
        TypeError: it defines none, or several.
    """
    module = importlib.import_module(f"generalist.{kind}.{name}")
    classes = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise TypeError(f"{module.__name__} must define exactly one {base.__name__} class, found {len(classes)}")
    return classes[0]


def plugin(kind: str, written: Any) -> Any:
    """Turn a section such as `{name: trades, beta: 6}` into the options class of the file that the name means.

    Only the named file is imported; with it may come torch, which is why this happens when a
    configuration is read and not when this module is imported.
    """
    if isinstance(written, Plugin):
        return written
    known = part_names(kind)
    if not isinstance(written, Mapping) or "name" not in written:
        raise ValueError(f"'name' is missing: one of {', '.join(known)}")
    name = written["name"]
    if name not in known:
        raise ValueError(f"unknown name '{name}'; {nearest(str(name), known)}")
    return part(kind, name, Plugin).model_validate(written)
