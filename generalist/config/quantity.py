"""Numbers that may be written as fractions (`8/255`) or with an exponent (`1e-3`) and are shown so again."""

import re
from fractions import Fraction
from typing import Any, Self

from pydantic import GetCoreSchemaHandler, SerializationInfo
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
