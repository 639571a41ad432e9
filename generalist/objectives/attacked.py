"""What objectives on attacked images share: the threat, the attack, and how the published codes begin it."""

from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from generalist.attacks import attack_from
from generalist.attacks.losses import Loss as AttackLoss
from generalist.attacks.losses import Network
from generalist.config import AnyThreat, AttackOptions, Quantity, Schedule, ThreatOptions
from generalist.config.bounds import NonNegative, NonNegativeSchedule
from generalist.objectives.contract import Context, Learner, Loss, Objective
from generalist.randomness import normal_like
from generalist.tensors import Batch, Images, Labels, PerImage
from generalist.threats import threat_from

_START_NOISE = 0.001
"""Standard deviation of the noise beside the image (published codes of Zhang et al. 2019 and Wang et al. 2020)."""

_CALIBRATED = Quantity("10/200")
"""Where the published code of Wei et al. (CVPR 2023) begins to calibrate."""


class Threatened(Objective):
    """An objective on images that are attacked within a threat, in a way of its own."""

    attacks_in: ClassVar[Literal["balls", "pixels", "spaces"]] = "balls"
    """What its attack takes: balls of a norm alone, also other threats that move pixels, or all threats."""

    threat: AnyThreat = Field(
        description="what this expert is trained against, such as threat: {norm: linf, eps: 8/255}"
    )

    @property
    def trains_against(self) -> tuple[ThreatOptions, ...]:
        return (self.threat,)

    @model_validator(mode="after")
    def _can_attack(self) -> "Threatened":
        space = threat_from(self.threat).space
        if space is None or self.attacks_in == "spaces" or (self.attacks_in == "pixels" and space.moves_pixels):
            return self
        raise ValueError(
            f"'threat' is {self.threat.norm}, but the attack of this objective moves pixels of its own accord: give it"
            " a norm, such as linf, or train by an objective whose attack is PGD alone, such as adversarial"
        )


class Attacked(Threatened):
    """One whose attack is an option."""

    attacks_in: ClassVar[Literal["balls", "pixels", "spaces"]] = "spaces"

    attack: AttackOptions = Field(AttackOptions(steps=10), description="how training images are attacked")

    @property
    def gradients_per_image(self) -> int:
        return self.attack.steps

    def effective(self, progress: NDArray[np.float64]) -> dict[str, Any]:
        return super().effective(progress) | {"attack": attack_from(self.attack, threat_from(self.threat)).settings}

    def by_cross_entropy(self, context: Context, learner: Learner, batch: Batch, **more: Any) -> Images:
        """Return the images attacked by raising the cross-entropy of the labels; `more` is of `pgd`."""
        attack = attack_from(self.attack, threat_from(self.threat))
        return attack(learner.frozen, batch.images, batch.labels, generator=context.generator, **more)


class AttackedFromBeside(Attacked):
    """One whose attack begins with a little noise beside the image, whatever `attack.random_start` says."""

    attacks_in: ClassVar[Literal["balls", "pixels", "spaces"]] = "pixels"

    def effective(self, progress: NDArray[np.float64]) -> dict[str, Any]:
        options = super().effective(progress)
        options["attack"].pop("random_start")
        return options

    def from_beside(
        self,
        context: Context,
        network: Network,
        images: Images,
        reference: Tensor,
        *,
        raising: AttackLoss,
        scale: PerImage | None = None,
    ) -> Images:
        """Return the images attacked by raising a loss against a reference; `scale` is that of `pgd`."""
        threat = threat_from(self.threat)
        start = images + normal_like(images, std=_START_NOISE, generator=context.generator)
        start = threat.ball(images, scale).project_(start)
        return attack_from(self.attack, threat)(network, images, reference, loss=raising, start=start, scale=scale)


class ByClass(Attacked):
    """One whose radii and step sizes differ by class: a class that stood well in the epoch before gets larger ones.

    A class of which a share t of the training images stood gets (floor + t) eps. Until an epoch has ended all have eps.
    """

    floor: NonNegative = Field(Quantity("0.5"), description="share of eps of a class that never stands")
    calibrated: NonNegativeSchedule = Field(
        Schedule.model_validate([[0, 0], [_CALIBRATED, 0], [_CALIBRATED, 1]]),
        description="how much of that acts: 0 for eps alone, up to 1",
    )

    @model_validator(mode="after")
    def _within_range(self) -> "ByClass":
        if self.calibrated.extremes()[1] > 1:
            raise ValueError("'calibrated' must lie between 0 and 1: at 0 all classes have eps")
        return self

    def tables(self, classes: int, images: int) -> dict[str, Tensor]:
        counts = {name: torch.zeros(classes) for name in ("robust", "stood", "seen")}
        return counts | {"epoch": torch.full((1,), -1), "known": torch.zeros(1)}

    def begin(self, context: Context) -> Tensor:
        """Take over what was counted, where an epoch begins; returns whether there was something, bool [1]."""
        tables = context.tables
        begins = tables["epoch"] != context.epoch
        ended = begins & (tables["seen"].sum() > 0)
        accuracy = tables["stood"] / tables["seen"].clamp_min(1)
        tables["robust"].copy_(torch.where(ended, accuracy, tables["robust"]))
        tables["known"].copy_(torch.where(ended, 1.0, tables["known"]))
        for name in ("stood", "seen"):
            tables[name].mul_(~begins)
        tables["epoch"].fill_(context.epoch)
        return ended

    def factor(self, context: Context, labels: Labels, floor: float) -> PerImage:
        """Return floor + t of each image's class, as far as that acts yet."""
        tables = context.tables
        by_class = 1 + tables["known"] * context.at(self.calibrated) * (floor + tables["robust"] - 1)
        return by_class[labels]

    def count(self, context: Context, learner: Learner, batch: Batch, attacked: Images) -> Labels:
        """Count which images stand; returns what the present weights say of them."""
        with torch.no_grad():
            said: Labels = learner.frozen.view("decision")(attacked).argmax(dim=1)
        context.tables["seen"].index_add_(0, batch.labels, torch.ones_like(attacked[:, 0, 0, 0]))
        context.tables["stood"].index_add_(0, batch.labels, (said == batch.labels).to(attacked.dtype))
        return said


def mean_cross_entropy(learner: Learner, batch: Batch, attacked: Images) -> Loss:
    """Return the mean cross-entropy on the attacked images; training accuracy is that on them."""
    raw = learner.model(attacked)
    value = learner.label_loss({"adversarial": raw}, batch.labels, of="adversarial")
    return Loss(value, learner.model.decision(raw))
