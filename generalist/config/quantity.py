"""Numbers that may be written as fractions (`8/255`) or with an exponent (`1e-3`), and may change over training."""

import re
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    SerializationInfo,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

_LONGEST = 64
_HUGE = re.compile(r"[eE][+-]?_?\d[\d_]{3,}")
"""An exponent of four digits: as fractions are exact, they would be written out."""


class Quantity(float):
    """A float that remembers how it was written; equal to, and hashed as, its value.

    YAML 1.1 reads `8/255` and `1e-3` as strings, so strings are parsed here.
    """

    written: float | str

    def __new__(cls, written: Any) -> Self:
        """Parse `written`: a number, or a string such as `8/255`, `1e-3` or `0.1`.

        Raises:
            ValueError: it is neither, or not finite.
        """
        if isinstance(written, bool) or not isinstance(written, float | int | str):
            raise ValueError(f"{written!r} is not a number")
        if isinstance(written, str) and (len(written) > _LONGEST or _HUGE.search(written)):
            raise ValueError(f"{written[:20]!r}… is not a number such as 0.1, 8/255 or 1e-3")
        try:
            value = float(Fraction(written)) if isinstance(written, str) else float(written)
        except (ValueError, ZeroDivisionError, OverflowError):
            raise ValueError(f"{written!r} is not a number such as 0.1, 8/255 or 1e-3") from None
        if not abs(value) < float("inf"):
            raise ValueError(f"{written!r} is not finite")
        self = super().__new__(cls, value)
        self.written = written.written if isinstance(written, Quantity) else written
        return self

    def __reduce__(self) -> tuple[type[Self], tuple[float | str]]:
        """Keep the spelling in copies, also in those for another process."""
        return type(self), (self.written,)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Let fields of this type take fractions; the JSON schema calls it a number or a string."""
        return core_schema.no_info_plain_validator_function(
            cls, serialization=core_schema.plain_serializer_function_ser_schema(_shown, info_arg=True)
        )


def _shown(value: float, info: SerializationInfo) -> float | str:
    """Return it as written for people, as the bare value for digests."""
    if isinstance(info.context, dict) and info.context.get("canonical"):
        return float(value)
    return value.written if isinstance(value, Quantity) else value


Value = Annotated[Quantity, Field(ge=-1e6, le=1e6)]


class Schedule(BaseModel):
    """A number, or knots `[[progress, value], ...]` joined by straight lines.

    Progress runs from 0 (before the first step) to 1 (after the last). Two knots at the same
    progress make a jump; the later one holds from there on. Beyond the outer knots the value is constant.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    knots: tuple[tuple[Value, Value], ...]

    @model_validator(mode="before")
    @classmethod
    def _from_yaml(cls, written: Any) -> Any:
        if isinstance(written, dict | Schedule):
            return written
        if isinstance(written, Sequence) and not isinstance(written, str):
            if not all(isinstance(knot, Sequence) and not isinstance(knot, str) and len(knot) == 2 for knot in written):
                raise ValueError(
                    "a schedule is a number or a list of [progress, value] pairs, such as [[0, 1], [1, 0.1]]"
                )
            return {"knots": written}
        return {"knots": [(0, written)]}

    @model_validator(mode="after")
    def _ordered(self) -> "Schedule":
        progress = [float(p) for p, _ in self.knots]
        if not progress or min(progress) < 0 or max(progress) > 1 or any(b < a for a, b in pairwise(progress)):
            raise ValueError("the knots of a schedule need progress values between 0 and 1 in rising order")
        return self

    @model_serializer
    def _to_yaml(self, info: SerializationInfo) -> int | float | str | list[list[int | float | str]] | list[float]:
        context = info.context if isinstance(info.context, dict) else {}
        if (progress := context.get("progress")) is not None:
            return [float(value) for value in self.along(progress)]
        canonical = context.get("canonical")
        shown = [[float(number) if canonical else number.written for number in knot] for knot in self.knots]
        return shown[0][1] if len(shown) == 1 else shown

    def at(self, progress: float) -> float:
        """Return the value at `progress` in [0, 1]."""
        left = None
        for p, v in self.knots:
            if progress < p:
                if left is None:
                    return float(v)
                p0, v0 = left
                return float(v0 + (v - v0) * (progress - p0) / (p - p0))
            left = (p, v)
        assert left is not None  # _ordered refuses an empty schedule
        return float(left[1])

    def values(self, start: int, stop: int, total: int) -> NDArray[np.float64]:
        """Return the values of steps `start` to `stop` (exclusive) of `total`: float64 [stop - start]."""
        progress = np.arange(start, stop, dtype=np.float64) / total
        return self.along(progress)

    def along(self, progress: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the values at many places at once, to the bits of `at`."""
        knots = [(float(p), float(v)) for p, v in self.knots]
        values = np.full(progress.shape, knots[0][1])
        for (p0, v0), (p, v) in pairwise(knots):
            within = (progress >= p0) & (progress < p)
            if p > p0:
                values[within] = v0 + (v - v0) * (progress[within] - p0) / (p - p0)
        values[progress >= knots[-1][0]] = knots[-1][1]
        return values

    def extremes(self) -> tuple[float, float]:
        """Return the smallest and largest value; both are taken at knots."""
        values = [float(v) for _, v in self.knots]
        return min(values), max(values)
