"""FAIR-TAT: fair targeted adversarial training."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from generalist.attacks import attack_from
from generalist.attacks.losses import cross_entropy
from generalist.config import Quantity, Schedule
from generalist.config.bounds import NonNegative, NonNegativeSchedule
from generalist.objectives.attacked import ByClass, mean_cross_entropy
from generalist.objectives.contract import Context, Learner, Loss
from generalist.randomness import exponential_like
from generalist.tensors import Batch, Images, Labels, Logits, PerImage
from generalist.threats import threat_from


class FairTat(ByClass):
    """CE(f(x'), y), x' by PGD towards another class, within (floor + t_y) eps (FAIR-TAT, WACV 2025, and its code).

    The class aimed at is drawn by softmax(sharpness s) among all but y, where s_k is the share of the robust errors in
    the epoch before that took an image for one of class k.
    """

    has_label_loss: ClassVar[bool] = True

    name: Literal["fair_tat"]
    calibrated: NonNegativeSchedule = Field(
        Schedule.model_validate(1), description="how much of that acts: 0 for eps alone, up to 1"
    )
    sharpness: NonNegative = Field(
        Quantity(2), description="how much attacks prefer classes that many images were taken for; 0: all alike"
    )

    def tables(self, classes: int, images: int) -> dict[str, Tensor]:
        return super().tables(classes, images) | {name: torch.zeros(classes) for name in ("confusing", "taken")}

    def attacked(self, context: Context, learner: Learner, batch: Batch) -> Images:
        tables, ended = context.tables, self.begin(context)
        shares = tables["taken"] / tables["taken"].sum().clamp_min(1)
        tables["confusing"].copy_(torch.where(ended, shares, tables["confusing"]))
        tables["taken"].mul_(~ended)
        scale = self.factor(context, batch.labels, float(self.floor))
        attack = attack_from(self.attack, threat_from(self.threat))
        targets = self.targets(context, batch)
        attacked = attack(
            learner.frozen, batch.images, targets, generator=context.generator, scale=scale, loss=_towards
        )
        said = self.count(context, learner, batch, attacked)
        tables["taken"].index_add_(0, said, (said != batch.labels).to(attacked.dtype))
        return attacked

    def targets(self, context: Context, batch: Batch) -> Labels:
        """Draw the class that each image's attack aims at."""
        odds = (float(self.sharpness) * context.tables["confusing"]).exp().expand(len(batch), -1)
        odds = odds.scatter(1, batch.labels[:, None], 0.0)
        # The first of waiting times with these rates: a draw by odds.
        return (exponential_like(odds, generator=context.generator) / odds).argmin(dim=1)

    def loss(self, context: Context, learner: Learner, batch: Batch, attacked: Images) -> Loss:
        """Return the mean cross-entropy of the labels on the attacked images."""
        return mean_cross_entropy(learner, batch, attacked)


def _towards(logits: Logits, targets: Labels) -> PerImage:
    return -cross_entropy(logits, targets)
