"""The section mixing: how experts become the global learner."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from generalist.config.bounds import Many, Name, check_decay
from generalist.config.quantity import Schedule
from generalist.config.section import Section


class Steps(Section):
    """An interval given in optimizer steps."""

    steps: Many = Field(description="optimizer steps between two redistributions")


Interval = Annotated[
    Annotated[Many, Tag("epochs")] | Annotated[Steps, Tag("steps")],
    Discriminator(lambda written: "steps" if isinstance(written, Mapping | Steps) else "epochs"),
]


class MixingOptions(Section):
    """How the experts become a global learner (Generalist, CVPR 2023, algorithm 1)."""

    warm_up: int = Field(ge=0, le=100_000, description="t': epochs before the first redistribution")
    interval: Interval = Field(description="c: epochs between two redistributions, or {steps: n}")
    burst: bool = Field(
        False,
        description="redistribute after every batch of epoch t' and of each c-th one after it, as the published code"
        " does;"
        " false: once, at their end",
    )
    decay: Schedule = Field(
        Schedule.model_validate(0.999),
        description="alpha': decay per step of the moving average, ramped up as (s+1)/(s+10)",
    )
    weights: dict[Name, Schedule] = Field(
        description="gamma: weight of each expert in the mixture over training progress; one expert may be left out"
        " and takes the rest"
    )
    redistribute: Literal["average", "mixture"] = Field(
        "average", description="what the experts go on from: the global learner, or the plain mixture of this step"
    )
    momentum: Literal["keep", "reset"] = Field(
        "keep", description="what a redistribution does to the optimizers' state"
    )

    @model_validator(mode="after")
    def _ranges(self) -> "MixingOptions":
        check_decay("decay", self.decay)
        if self.burst and isinstance(self.interval, Steps):
            raise ValueError(
                "mixing.burst redistributes after every batch of each c-th epoch, so give mixing.interval in epochs,"
                " such"
                " as 5, or set mixing.burst to false"
            )
        return self
