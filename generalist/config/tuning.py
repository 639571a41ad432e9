"""The section `tuning` of `params.yaml`: what is searched, by what, and for what."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, SerializerFunctionWrapHandler, Tag, model_serializer, model_validator

from generalist.config.bounds import Count, Fraction
from generalist.config.quantity import Quantity
from generalist.config.section import Section

Bound = Annotated[int | Quantity, Field(ge=-(2**63), le=2**63)]
_MANY = 10_000  # values of a range; of so many, hardly two trials draw the same


class _Dimension(Section):
    """One leaf of the tree that is searched."""

    when: dict[str, str | list[str]] = Field(
        {},
        description="searched only where other dimensions have these values, such as {experts.robust.optimizer: sgd}",
    )

    @model_serializer(mode="wrap")
    def _as_written(self, shown: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in shown(self).items() if key in self.model_fields_set}


class Choices(_Dimension):
    """One of some values. A map gives them names, by which conditions, tables and plots then call them."""

    choices: Annotated[list[Any] | dict[str, Any], Field(min_length=1)] = Field(
        description="a list of values, or a map from names to values"
    )

    @property
    def named(self) -> dict[str, Any]:
        """The values by name."""
        if isinstance(self.choices, dict):
            return self.choices
        return {value if isinstance(value, str) else json.dumps(value): value for value in self.choices}


class Range(_Dimension):
    """Numbers between two ends, both included; whole ones where both ends (and the step) are written so."""

    low: Bound = Field(description="smallest value")
    high: Bound = Field(description="largest value")
    step: Annotated[int | Quantity, Field(gt=0, le=2**63)] | None = Field(
        None, description="between neighbouring values"
    )
    log: bool = Field(False, description="search on a logarithmic scale")

    @model_validator(mode="after")
    def _makes_sense(self) -> "Range":
        if self.low >= self.high:
            raise ValueError(f"low is {self.low} and high is {self.high}, but low must be the smaller one")
        if self.log and (self.step is not None or self.low <= 0):
            raise ValueError("log needs a low above 0, and no step")
        return self

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers."""
        return all(isinstance(end, int) for end in (self.low, self.high, self.step) if end is not None)

    @property
    def values(self) -> list[int | float] | None:
        """All values, where there are few enough to name; None where trials hardly ever meet at one."""
        if not self.whole and self.step is None:
            return None
        step = self.step or 1
        count = int((self.high - self.low) / step + 1e-9) + 1
        return None if count > _MANY else [self.low + index * step for index in range(count)]


Dimension = Annotated[
    Annotated[Choices, Tag("choices")] | Annotated[Range, Tag("range")],
    Discriminator(
        lambda written: (
            "choices"
            if isinstance(written, Choices) or (isinstance(written, Mapping) and "choices" in written)
            else "range"
        )
    ),
]


class NaturalAtLeast(Section):
    """The most robust learner among those that are accurate enough."""

    natural_at_least: Fraction = Field(description="natural accuracy in (0, 1), such as 0.9")


Objective = Annotated[
    Annotated[Literal["harmonic", "pareto"], Tag("name")] | Annotated[NaturalAtLeast, Tag("bounded")],
    Discriminator(lambda written: "bounded" if isinstance(written, Mapping | NaturalAtLeast) else "name"),
]


class TuningOptions(Section):
    """A search over the tree. Nothing of it has an effect on a single training."""

    trials: Count = Field(40, le=100_000, description="trainings to try")
    seed: int = Field(0, ge=0, lt=2**32, description="of the sampler")
    objective: Objective = Field(
        "harmonic",
        description="harmonic mean of natural and robust accuracy, both as a front (pareto), or robust accuracy where"
        " natural accuracy is high enough, as in {natural_at_least: 0.9}",
    )
    sampler: Literal["tpe", "gp", "nsga2", "random", "grid"] = Field("tpe", description="of Optuna, by name")
    pruner: Literal["median", "hyperband", "none"] = Field("median", description="of Optuna, by name")
    startup_trials: Count = Field(
        8, le=100_000, description="random trials before the sampler learns, and before anything is pruned"
    )
    rung: Count = Field(
        5, le=100_000, description="epochs between the measurements by which trials are compared and pruned"
    )
    attack: Literal["quick", "selection"] = Field(
        "quick",
        description="attack on the validation split that decides a trial's value: a quick cascade, or the weaker one of"
        " evaluation.selection_attack",
    )
    finalists: Count = Field(
        3, le=1000, description="best trials, which evaluation.attack judges anew on the validation split"
    )
    seeds: Count = Field(3, le=1000, description="trainings of the best parameters when they are promoted")
    space: dict[str, Dimension] = Field({}, description="what is searched: dotted paths of the tree, with their values")
