"""Adversarial training with projected gradient descent, known as PGD-AT."""

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch.nn import functional as F

from generalist.attacks import attack_from
from generalist.config import AttackOptions, ThreatOptions
from generalist.objectives.contract import Learner, Loss, Objective
from generalist.tensors import Batch
from generalist.threats import threat_from


class Adversarial(Objective):
    """Cross-entropy on images attacked by PGD (Madry et al., ICLR 2018, equation 2.1)."""

    name: Literal["adversarial"]
    threat: ThreatOptions = Field(
        description="what this expert is trained against, such as threat: {norm: linf, eps: 8/255}"
    )
    attack: AttackOptions = Field(AttackOptions(steps=10), description="how training images are attacked")

    @property
    def trains_against(self) -> ThreatOptions:
        return self.threat

    def effective(self, progress: NDArray[np.float64]) -> dict[str, Any]:
        attack = attack_from(self.attack, threat_from(self.threat))
        return super().effective(progress) | {"attack": attack.settings}

    def loss(self, learner: Learner, batch: Batch, generator: torch.Generator) -> Loss:
        """Mean cross-entropy on the attacked batch."""
        attack = attack_from(self.attack, threat_from(self.threat))
        images = attack(learner.attackable, batch.images, batch.labels, generator=generator)
        raw = learner.model(images)
        value = F.cross_entropy(raw, learner.model.targets(batch.labels, "adversarial"))
        return Loss(value, learner.model.decision(raw))
