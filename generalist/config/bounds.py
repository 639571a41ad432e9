"""Bounds and names that options are made of."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from generalist.config.quantity import Quantity, Schedule
from generalist.config.section import is_part, nearest, part_names

Positive = Annotated[Quantity, Field(gt=0, le=1e6)]
NonNegative = Annotated[Quantity, Field(ge=0, le=1e6)]


def _never_negative(schedule: Schedule) -> Schedule:
    if schedule.extremes()[0] < 0:
        raise ValueError("it must not fall below 0")
    return schedule


NonNegativeSchedule = Annotated[Schedule, AfterValidator(_never_negative)]
Fraction = Annotated[Quantity, Field(gt=0, lt=1)]
Width = Annotated[Quantity, Field(gt=0, le=1)]
"""A share of a network's channels."""
Count = Annotated[int, Field(ge=1)]
"""With an upper bound of the field's own: of two upper bounds pydantic would take one, without a word."""
Many = Annotated[int, Field(ge=1, le=1_000_000_000)]


def _checked_name(name: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"the name '{name}' must be of lower-case letters, digits and _")
    return name


Name = Annotated[str, AfterValidator(_checked_name)]


def _checked_norm(norm: str) -> str:
    if not is_part("threats", norm) and not is_part("threats.spaces", norm):
        known = [*part_names("threats"), *part_names("threats.spaces")]
        raise ValueError(f"there is no threat of norm '{norm}'; {nearest(norm, known)}")
    return norm


Norm = Annotated[str, AfterValidator(_checked_norm)]


def check_decay(key: str, schedule: Schedule) -> None:
    """Check the decay of a moving average, whose option is called so.

    Raises:
        ValueError: it leaves its range.
    """
    low, high = schedule.extremes()
    if low < 0 or high >= 1:
        raise ValueError(f"'{key}' must lie in [0, 1): it is the share of the old average kept at each step")


def unused(value: object) -> bool:
    """Keep an option that few need out of the keys and files of all others: `exclude_if`."""
    return not value
