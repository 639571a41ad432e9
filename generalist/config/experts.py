"""The section experts: what each minimises, by which optimizer, on which epochs."""

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from generalist.config.attacks import AttackOptions, ThreatOptions
from generalist.config.bounds import Name, NonNegative, Positive, check_decay, unused
from generalist.config.network import ModelOptions
from generalist.config.quantity import Quantity, Schedule
from generalist.config.section import Plugin, Section, plugin


class ObjectiveOptions(Plugin):
    """What an expert minimises; each objective adds its own options.

    Attributes:
        needs: what of the expert's options it can't do without: "averaging", "teacher", "start_from"; "two_views",
            augmentations, of which it gets two; "unlabelled" images; "peers", the other experts; or "condition", that
            of the model.
        has_label_loss: whether its loss leads towards labels by `Learner.label_loss`.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    has_label_loss: ClassVar[bool] = False

    def check_model(self, model: ModelOptions) -> None:
        """Refuse a network that it can't train.

        Raises:
            ValueError: with a sentence that begins with the option's name.
        """

    @property
    def gradients_per_image(self) -> int:
        """How many gradients in an image its attacks take at a step, for estimates."""
        return 0

    @property
    def attacks_per_image(self) -> int:
        """How many attacked images it makes of each image at a step."""
        return 1

    @property
    def seen_by_peers(self) -> bool:
        """Whether experts that need peers learn from its own."""
        return True


class PerturbationOptions(Plugin):
    """Where weights are moved to before gradients are taken; each way adds its own options."""


class Sgd(Section):
    """Stochastic gradient descent, `torch.optim.SGD`."""

    name: Literal["sgd"]
    lr: Positive = Field(description="learning rate before its schedule")
    momentum: Annotated[Quantity, Field(ge=0, lt=1)] = Quantity(0.9)
    weight_decay: NonNegative = Quantity(0)
    nesterov: bool = False


class Adam(Section):
    """`torch.optim.Adam`: weight decay is added to the gradient."""

    name: Literal["adam"]
    lr: Positive = Field(description="learning rate before its schedule")
    betas: tuple[Annotated[Quantity, Field(ge=0, lt=1)], Annotated[Quantity, Field(ge=0, lt=1)]] = (
        Quantity(0.9),
        Quantity(0.999),
    )
    weight_decay: NonNegative = Quantity(0)


class AdamW(Adam):
    """`torch.optim.AdamW`: weight decay is decoupled from the gradient."""

    name: Literal["adamw"]  # type: ignore[assignment]


Optimizer = Annotated[Sgd | Adam | AdamW, Field(discriminator="name")]


class SequenceOptions(Section):
    """The part of the training in which an expert trains, and which other one it follows."""

    start: int = Field(0, ge=0, le=100_000, description="epochs of the training before its first one")
    stop: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        None, description="epochs of the training after which it stands still; null for the training's end"
    )
    start_from: Name | None = Field(
        None, description="another expert, whose weights it takes when it starts; null for the common initial ones"
    )
    teacher: Name | None = Field(
        None, description="another expert, which has stopped before, for objectives that need a teacher"
    )


class GateOptions(Section):
    """When a weight average moves: once an epoch, if each class stands often enough (FAWA, Wei et al., CVPR 2023)."""

    worst_class: Annotated[Quantity, Field(ge=0, le=1)] = Field(
        description="robust accuracy on the validation split that the worst class must have"
    )
    threat: ThreatOptions = Field(description="how validation images are attacked, such as {norm: linf, eps: 8/255}")
    attack: AttackOptions = Field(AttackOptions(steps=10), description="the attack within it")


class ExpertOptions(Section):
    """One expert: its own objective, data augmentation, optimizer, schedule and averaging."""

    objective: Annotated[
        SerializeAsAny[ObjectiveOptions], BeforeValidator(lambda written: plugin("objectives", written))
    ] = Field(description="what this expert minimises, such as {name: natural}")
    augment: tuple[Literal["crop", "flip", "cutout", "rotate"], ...] = Field(
        (), description="augmentations of its training images, in order"
    )
    optimizer: Optimizer = Field(description="such as {name: sgd, lr: 0.05}")
    schedule: Schedule = Field(
        Schedule.model_validate(1), description="factor on the learning rate over training progress"
    )
    perturbation: Annotated[
        SerializeAsAny[PerturbationOptions] | None,
        BeforeValidator(lambda written: None if written is None else plugin("perturbations", written)),
    ] = Field(None, description="of the weights while gradients are taken, such as {name: awp, gamma: 0.005}; or null")
    averaging: Schedule | Literal[False] = Field(
        False, description="decay of the expert's own weight average, which is then what is mixed; false for none"
    )
    gate: GateOptions | None = Field(
        None,
        description="lets the average move once an epoch, where the worst class stands: {worst_class: 0.2, threat: …};"
        " or null",
        exclude_if=unused,
    )
    sequence: SequenceOptions | None = Field(
        None, description="when it trains, as in {start: 10, start_from: natural, teacher: natural}; null for always"
    )

    @property
    def start_from(self) -> str | None:
        """The expert whose weights it takes when it starts."""
        return None if self.sequence is None else self.sequence.start_from

    @property
    def teacher(self) -> str | None:
        """The expert that is its teacher."""
        return None if self.sequence is None else self.sequence.teacher

    @model_validator(mode="after")
    def _ranges(self) -> "ExpertOptions":
        if self.schedule.extremes()[0] < 0:
            raise ValueError("'schedule' must not fall below 0: it multiplies the learning rate")
        if self.averaging is not False:
            check_decay("averaging", self.averaging)
        elif self.gate is not None:
            raise ValueError("'gate' is without effect without an average: give 'averaging' a decay, such as 0.88")
        return self
