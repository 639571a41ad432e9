"""Every number of the configuration has two bounds, and is read at once however it is written."""

import re
import time
import typing
from collections.abc import Iterator
from typing import Annotated, Any

import annotated_types
import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from generalist.config import Config, Plugin, Quantity
from generalist.config.section import part, part_names
from generalist.errors import BadInput
from generalist.threats import Threat
from tests.training_factory import small

KINDS = ("data.sources", "models", "objectives", "perturbations")
LOWER, UPPER = (annotated_types.Ge, annotated_types.Gt), (annotated_types.Le, annotated_types.Lt)


def flat(metadata: Any) -> Iterator[Any]:
    """Yield the constraints that a field or an annotation carries."""
    for own in metadata:
        yield from flat(own.metadata) if isinstance(own, FieldInfo) else (own,)


def numbers(annotation: Any, metadata: tuple[Any, ...], place: str, seen: set[type]) -> Iterator[tuple[str, bool]]:
    """Each number below an annotation by its place, and whether it has one of each bound."""
    if typing.get_origin(annotation) is Annotated:
        inner, *more = typing.get_args(annotation)
        yield from numbers(inner, (*metadata, *flat(more)), place, seen)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if annotation not in seen:
            seen.add(annotation)
            for name, field in annotation.model_fields.items():
                yield from numbers(field.annotation, tuple(flat(field.metadata)), f"{annotation.__name__}.{name}", seen)
    elif annotation in (int, float, Quantity):
        # One each: of two upper bounds pydantic takes that of the annotation, however wide it is.
        yield place, all(sum(isinstance(own, bound) for own in metadata) == 1 for bound in (LOWER, UPPER))
    elif typing.get_origin(annotation) is not typing.Literal:
        union = typing.get_origin(annotation) not in (list, tuple, dict)
        for own in typing.get_args(annotation):
            yield from numbers(own, metadata if union else (), place, seen)


def test_every_number_of_the_tree_has_one_lower_and_one_upper_bound() -> None:
    """One of each; those of all sources, networks, objectives and perturbations, too."""
    seen: set[type] = set()
    parts = [part(kind, name, Plugin) for kind in KINDS for name in part_names(kind)]
    found = dict(own for tree in (Config, *parts) for own in numbers(tree, (), "", seen))
    assert len(found) > 50
    assert [place for place, bounded in found.items() if not bounded] == []


@pytest.mark.parametrize("written", ["1e999999999", "1e-999999999", "1/1e999999999", "1e9_999_999", "1e999", "9" * 64])
@pytest.mark.parametrize(
    "key",
    ["evaluation.threats.0.eps", "training.epochs", "experts.natural.optimizer.lr", "mixing.decay", "tuning.trials"],
)
def test_huge_numbers_are_refused_at_once(key: str, written: str) -> None:
    """Nothing is computed of them first."""
    began = time.monotonic()
    with pytest.raises(BadInput, match=re.escape(key)):
        small(f"{key}={written}")
    with pytest.raises(BadInput):
        Threat.parse(f"linf:{written}").check_plausible(64)
    assert time.monotonic() - began < 2
