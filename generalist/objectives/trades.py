"""TRADES: natural cross-entropy plus a penalty on how far an attack moves the prediction."""

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch.nn import functional as F

from generalist.attacks import attack_from
from generalist.attacks.losses import divergence
from generalist.config import AttackOptions, Quantity, ThreatOptions
from generalist.config.sections import NonNegative
from generalist.objectives.contract import Learner, Loss, Objective
from generalist.randomness import normal_like
from generalist.tensors import Batch
from generalist.threats import threat_from

_START_NOISE = 0.001
"""Standard deviation of the noise that the attack starts from: at the image itself the divergence
has no gradient (Zhang et al.'s published code)."""


class Trades(Objective):
    """CE(f(x), y) + beta KL(f(x) || f(x')), x' by ascent on the divergence (Zhang et al., ICML 2019, equation 5)."""

    name: Literal["trades"]
    threat: ThreatOptions = Field(
        description="what this expert is trained against, such as threat: {norm: linf, eps: 8/255}"
    )
    attack: AttackOptions = Field(AttackOptions(steps=10), description="how training images are attacked")
    beta: NonNegative = Field(Quantity(6), description="weight of the divergence")

    @property
    def trains_against(self) -> ThreatOptions:
        return self.threat

    def effective(self, progress: NDArray[np.float64]) -> dict[str, Any]:
        attack = attack_from(self.attack, threat_from(self.threat)).settings
        attack.pop("random_start")  # it begins beside the image in any case
        return super().effective(progress) | {"attack": attack}

    def loss(self, learner: Learner, batch: Batch, generator: torch.Generator) -> Loss:
        """The sum of both terms; training accuracy is that on the attacked images."""
        threat = threat_from(self.threat)
        with torch.no_grad():
            clean = F.log_softmax(learner.attackable(batch.images), dim=1)
        noise = normal_like(batch.images, std=_START_NOISE, generator=generator)
        start = threat.project(batch.images + noise, batch.images)
        attack = attack_from(self.attack, threat)
        images = attack(learner.attackable, batch.images, clean, loss=divergence, start=start)
        raw, raw_attacked = learner.model(batch.images), learner.model(images)
        natural = F.cross_entropy(raw, learner.model.targets(batch.labels, "natural"))
        robust = F.kl_div(
            F.log_softmax(raw_attacked, dim=1), F.log_softmax(raw, dim=1), reduction="batchmean", log_target=True
        )
        return Loss(natural + self.beta * robust, learner.model.decision(raw_attacked))
