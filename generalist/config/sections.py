"""The sections of `params.yaml`: every option with its unit, its range and its meaning."""

import importlib
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    SerializationInfo,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)

from generalist.config.condition import Condition, ConditionOptions
from generalist.config.quantity import Quantity, Schedule
from generalist.config.section import Plugin, Section, is_part, nearest, part_names, plugin

Positive = Annotated[Quantity, Field(gt=0, le=1e6)]
NonNegative = Annotated[Quantity, Field(ge=0, le=1e6)]


def _never_negative(schedule: Schedule) -> Schedule:
    if schedule.extremes()[0] < 0:
        raise ValueError("it must not fall below 0")
    return schedule


NonNegativeSchedule = Annotated[Schedule, AfterValidator(_never_negative)]
Fraction = Annotated[Quantity, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
"""With an upper bound of the field's own: of two upper bounds pydantic would take one, without a word."""
Many = Annotated[int, Field(ge=1, le=1_000_000_000)]


def _checked_name(name: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"the name '{name}' must be of lower-case letters, digits and _")
    return name


Name = Annotated[str, AfterValidator(_checked_name)]


def _checked_norm(norm: str) -> str:
    if not is_part("threats", norm):
        raise ValueError(f"there is no threat of norm '{norm}'; {nearest(norm, part_names('threats'))}")
    return norm


Norm = Annotated[str, AfterValidator(_checked_norm)]


class ThreatOptions(Section):
    """What the adversary may do to an image: move it within a ball, inside the pixel range."""

    norm: Norm = Field(description="the norm of the ball: linf, l2 or l1")
    eps: Positive = Field(description="radius of the ball, in pixel units (pixels lie in [0, 1]), such as 8/255")

    @model_validator(mode="after")
    def _some_images_lie_outside(self) -> "ThreatOptions":
        # The geometry costs torch, as other plug-ins do: it is imported when a configuration is read.
        geometry: Any = importlib.import_module("generalist.threats").ball_of(self.norm)
        if self.eps >= geometry.whole_range(math.inf):  # of most norms it hangs on the number of pixels
            hint = f"; did you mean {self.eps.written}/255?" if "/" not in str(self.eps.written) else ""
            raise ValueError(f"an 'eps' of {self.eps.written} allows every image, as pixels lie in [0, 1]{hint}")
        return self


class AttackOptions(Section):
    """Projected gradient ascent (Madry et al. 2018); `fgsm` is its single full step (Goodfellow et al. 2015)."""

    name: Literal["pgd", "fgsm"] = "pgd"
    steps: Count = Field(10, le=10_000, description="gradient steps actually taken")
    step_size: Positive | None = Field(None, description="pixel units; by default 2.5 eps / steps, and eps for fgsm")
    random_start: bool = Field(True, description="start at a random point of the ball (fgsm: at the image)")

    @model_validator(mode="after")
    def _one_step_is_one_step(self) -> "AttackOptions":
        if self.name == "fgsm" and "steps" in self.model_fields_set and self.steps != 1:
            raise ValueError("fgsm takes one step: leave 'steps' out, or name the attack pgd")
        return self


class SelectionAttackOptions(AttackOptions):
    """Attack of the validation split: one of those that train, or a quick cascade (`quick`), which is stronger."""

    name: Literal["pgd", "fgsm", "quick"] = "pgd"  # type: ignore[assignment]  # one name more

    @model_validator(mode="after")
    def _quick_has_its_own_steps(self) -> "SelectionAttackOptions":
        given = ", ".join(sorted(self.model_fields_set - {"name"}))
        if self.name == "quick" and given:
            raise ValueError(
                f"quick has settings of its own: leave {given} out, as in 'selection_attack: {{name: quick}}'"
            )
        return self


REST = "rest"
"""In place of a folder of unlabelled images: those that `data.images` leaves out."""


def _unused(value: object) -> bool:
    """Keep an option of conditional networks out of the keys and files of all others."""
    return not value


class DataOptions(Plugin):
    """Where the images come from and how they are split; each source adds its own options."""

    validation: Fraction = Field(Quantity("0.2"), description="share of the training images held back for choices")
    seed: int = Field(
        0, ge=0, lt=2**32, description="seed of the validation split (and of the test split where the source has none)"
    )
    images: Many | Literal["all"] = Field(
        "all",
        description="to try things: n training images with the shares of all classes, of which validation takes its"
        " part, or all",
    )
    copies: Literal["keep", "remove"] = Field(
        "keep",
        description="training images that lie in the validation or test split, too, are counted, and kept or removed",
    )

    unlabelled: str | None = Field(
        None,
        description="images without labels, for objectives that need them: a folder, an .npz file with uint8 images"
        " [n, channels, height, width], or rest, the training images that `images` leaves out; null for none",
        exclude_if=lambda named: named is None,  # so that data without them keeps its digests
    )

    @model_validator(mode="after")
    def _some_are_left(self) -> "DataOptions":
        if self.unlabelled == REST and self.images == "all":
            raise ValueError(
                "'unlabelled' is rest, but 'images' is all and leaves none out: let 'images' be a number, or name a"
                " folder (one that is called so as ./rest)"
            )
        return self

    @property
    def title(self) -> str:
        """What people call these images."""
        return self.name


class HeadOptions(Plugin):
    """What the raw outputs of a network mean; each head adds its own options."""

    def __call__(self, classes: int) -> Any:
        """Return the head for so many classes, a `generalist.models.Head`."""
        raise NotImplementedError


class ModelOptions(Plugin):
    """The network; each architecture adds its own options."""

    head: Annotated[SerializeAsAny[HeadOptions], BeforeValidator(lambda written: plugin("models.heads", written))] = (
        Field(
            default_factory=lambda: plugin("models.heads", {"name": "plain"}),
            description="what the raw outputs mean: {name: plain}, one logit for each class, or {name: dummy}",
        )
    )
    condition: ConditionOptions | None = Field(
        None,
        exclude_if=_unused,
        description="a number per image that the network depends on, as objectives that draw one need; null for none",
    )

    @model_serializer(mode="wrap")
    def _without_a_plain_head(self, written: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """Leave out of digests what every network had before there was a choice."""
        options: dict[str, Any] = written(self)
        if isinstance(info.context, dict) and info.context.get("canonical") and options["head"] == {"name": "plain"}:
            del options["head"]
        return options


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
            _check_decay("averaging", self.averaging)
        return self


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
        _check_decay("decay", self.decay)
        if self.burst and isinstance(self.interval, Steps):
            raise ValueError(
                "mixing.burst redistributes after every batch of each c-th epoch, so give mixing.interval in epochs,"
                " such"
                " as 5, or set mixing.burst to false"
            )
        return self


class EvaluationOptions(Section):
    """What is measured. The test split is used once, after all choices; these are made on the validation split."""

    threats: tuple[ThreatOptions, ...] = Field(
        min_length=1, description="threats to measure, each by itself and, of several, their union"
    )
    headline: Literal["first", "union"] = Field(
        "first",
        description="what choices and gates go by: the first threat, or the union, where an image must stand in all",
    )
    selection_attack: SelectionAttackOptions = Field(
        SelectionAttackOptions(steps=10),
        description="attack on the validation split, for curves and for the choice of the round",
    )
    pgd: AttackOptions = Field(AttackOptions(steps=50), description="attack on the test split beside the cascade")
    attack: Literal["standard", "plus", "quick"] = Field(
        "standard", description="the cascade on the test split: AutoAttack's standard or plus; quick does not compare"
    )
    extra_attack: bool = Field(
        default=False, description="attack what the cascade leaves once more, for a column of its own (odi-t)"
    )
    square_queries: Count = Field(5000, le=10_000_000, description="queries of Square per image")
    precision: Literal["float32", "tf32", "bfloat16"] = Field(
        "float32",
        description="arithmetic of the cascade's searches; tf32 is float32 on a CPU; verdicts are float32 always",
    )
    images: Many | Literal["all"] = Field(
        "all", description="n images of the test split, chosen by `seed` with the shares of all classes, or all"
    )
    conditions: tuple[Condition, ...] = Field(
        (),
        exclude_if=_unused,
        description="values of lambda at which a conditional model is measured; the first is the headline, at which"
        " rounds are chosen",
    )
    transfers: bool = Field(
        default=False,
        exclude_if=_unused,
        description="attack a conditional model at each of its conditions through those at the others, too",
    )
    seed: int = Field(
        0, ge=0, lt=2**63, description="seed of the attacks; apart from the training's, so that trainings compare"
    )
    batch_size: Count = Field(
        512, le=1_000_000, description="images at a time in the cascade: a cap on memory, without effect on verdicts"
    )
    shards: Count = Field(
        1, le=10_000, description="tasks that share the images of a learner, without effect on verdicts"
    )

    @property
    def headline_threats(self) -> tuple[ThreatOptions, ...]:
        """The threats in all of which an image must stand to count as robust in choices, gates and headlines."""
        return self.threats if self.headline == "union" else self.threats[:1]

    @model_validator(mode="after")
    def _a_union_is_of_several_norms(self) -> "EvaluationOptions":
        if self.headline == "union" and len(self.threats) == 1:
            raise ValueError(
                "evaluation.headline is union, but evaluation.threats has one alone: add another, or set it to first"
            )
        for key in ("selection_attack", "pgd"):
            if self.headline == "union" and getattr(self, key).step_size is not None:
                raise ValueError(
                    f"evaluation.{key}.step_size is one for all norms of the union, whose radii differ: set it to null,"
                    " and each norm has its own"
                )
        return self


def _check_decay(key: str, schedule: Schedule) -> None:
    low, high = schedule.extremes()
    if low < 0 or high >= 1:
        raise ValueError(f"'{key}' must lie in [0, 1): it is the share of the old average kept at each step")
