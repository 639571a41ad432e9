"""A condition of a network: one number per image in [0, 1], lambda, and how the network gets it."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from generalist.config.quantity import Quantity
from generalist.config.section import Section

Condition = Annotated[Quantity, Field(ge=0, le=1)]
"""lambda: 0 for natural accuracy alone, 1 for robust accuracy alone."""

_CHOICES = tuple(map(Quantity, (0, "0.1", "0.2", "0.3", "0.4", 1)))


class ConditionOptions(Section):
    """How a network depends on lambda (once-for-all adversarial training, Wang et al., NeurIPS 2020)."""

    encoding: Literal["random", "dct", "one_hot", "raw"] = Field(
        "random",
        description="what layers get of lambda: a row of a random orthogonal matrix, of the discrete cosine transform"
        " or of the identity, interpolated between choices; or the number itself",
    )
    choices: tuple[Condition, ...] = Field(
        _CHOICES, description="values of lambda to train at, in rising order from 0; each has a row"
    )
    size: Annotated[int, Field(ge=1, le=8192)] = Field(128, description="numbers in a row; without effect on raw")

    @model_validator(mode="after")
    def _rows_for_all(self) -> "ConditionOptions":
        if len(self.choices) < 2 or self.choices[0] > 0 or any(b <= a for a, b in pairwise(self.choices)):
            raise ValueError("'choices' must rise from 0, with one more value at least, such as [0, 0.1, 0.5, 1]")
        if self.encoding != "raw" and self.size < len(self.choices):
            raise ValueError(f"'size' is {self.size}, but {len(self.choices)} choices need as many rows: raise it")
        return self
