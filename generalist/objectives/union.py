"""Adversarial training against several norms: the worst of them, all, one path through them, or one at a time."""

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch.nn import functional as F

from generalist.attacks import attack_from
from generalist.attacks.gradient import ResolvedAttack
from generalist.attacks.multi_norm import multi_steepest_descent, worst_of
from generalist.config import AnyThreat, AttackOptions, ThreatOptions
from generalist.objectives.contract import Context, Learner, Loss, Objective
from generalist.randomness import whole_number
from generalist.tensors import AttackedImages, Batch, Images
from generalist.threats import threat_from


class Union(Objective):
    """Cross-entropy on images attacked within several threats.

    `max`: the attack of the largest loss, image by image (MAX, Tramèr and Boneh, NeurIPS 2019). `mean`: the mean of the
    losses over all attacks, in one step (AVG, the same; the published code of MSD takes a step for each norm in turn).
    `msd`: one attack that goes through all norms (MSD, Maini, Wong and Kolter, ICML 2020). `random`: one threat for the
    whole batch, each as likely (SAT; of Linf and L1 E-AT, Croce and Hein, ICML 2022).
    """

    name: Literal["union"]
    threats: tuple[AnyThreat, ...] = Field(
        description="what this expert is trained against, such as [{norm: linf, eps: 8/255}, {norm: l2, eps: 0.3}]"
    )
    combine: Literal["max", "mean", "msd", "random"] = Field(description="how its threats become one loss")
    attack: AttackOptions = Field(
        AttackOptions(steps=10), description="how training images are attacked in each threat; msd begins at the images"
    )

    @model_validator(mode="after")
    def _is_of_several(self) -> "Union":
        different = {*self.threats}
        if len(different) < 2 or len(different) < len(self.threats):
            raise ValueError("'threats' of a union are two at least, no two of them the same: add another one")
        spaces = [space for space in (threat_from(threat).space for threat in self.threats) if space is not None]
        if self.combine == "msd" and not all(space.moves_pixels for space in spaces):
            raise ValueError(
                "'combine: msd' goes from norm to norm through pixels, which one of its 'threats' does not move: leave"
                " that out, or set it to max, mean or random"
            )
        if self.attack.step_size is not None:
            raise ValueError(
                "'attack.step_size' is one for all threats of a union, whose radii differ: set it to null, and each has"
                " its own"
            )
        return self

    @property
    def trains_against(self) -> tuple[ThreatOptions, ...]:
        return self.threats

    @property
    def gradients_per_image(self) -> int:
        return self.attack.steps * (len(self.threats) if self.combine in {"max", "mean"} else 1)

    @property
    def attacks_per_image(self) -> int:
        return len(self.threats) if self.combine == "mean" else 1

    def effective(self, progress: NDArray[np.float64]) -> dict[str, Any]:
        settings = [attack.settings for attack in self._attacks]
        if self.combine == "msd":
            settings = [{key: value for key, value in one.items() if key != "random_start"} for one in settings]
        return super().effective(progress) | {"attack": settings}

    @property
    def _attacks(self) -> list[ResolvedAttack]:
        return [attack_from(self.attack, threat_from(threat)) for threat in self.threats]

    def attacked(self, context: Context, learner: Learner, batch: Batch) -> AttackedImages:
        """Return the attacked images; with `mean`, float32 [batch, threats, C, H, W]."""
        network, attacks = learner.frozen, self._attacks
        if self.combine == "msd":
            return multi_steepest_descent(network, batch.images, batch.labels, attacks)

        def by(attack: ResolvedAttack) -> Images:
            return attack(network, batch.images, batch.labels, generator=context.generator)

        if self.combine == "random":
            return by(attacks[whole_number(len(attacks), generator=context.generator)])
        candidates = [by(attack) for attack in attacks]
        if self.combine == "mean":
            return torch.stack(candidates, dim=1)
        return worst_of(network, candidates, batch.labels)[0]

    def loss(self, context: Context, learner: Learner, batch: Batch, attacked: AttackedImages) -> Loss:
        """Return the mean cross-entropy over images and attacks; training accuracy is that on the worst of these."""
        model = learner.model
        raws = [model(images) for images in (attacked.unbind(1) if self.combine == "mean" else [attacked])]
        losses = torch.stack([F.cross_entropy(raw, batch.labels, reduction="none") for raw in raws])
        worst = losses.detach().argmax(dim=0)
        raw = torch.stack(raws)[worst, torch.arange(len(batch), device=worst.device)]
        return Loss(losses.mean(), model.decision(raw))
