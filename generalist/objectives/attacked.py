"""What objectives on attacked images share: the threat, the attack, and how the published codes begin it."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from generalist.attacks import attack_from
from generalist.attacks.losses import Loss as AttackLoss
from generalist.attacks.losses import Reference
from generalist.config import AttackOptions, ThreatOptions
from generalist.objectives.contract import Learner, Objective
from generalist.randomness import normal_like
from generalist.tensors import Images
from generalist.threats import threat_from

_START_NOISE = 0.001
"""Standard deviation of the noise beside the image (published codes of Zhang et al. 2019 and Wang et al. 2020)."""


class Attacked(Objective):
    """An objective on images that are attacked within a threat."""

    threat: ThreatOptions = Field(
        description="what this expert is trained against, such as threat: {norm: linf, eps: 8/255}"
    )
    attack: AttackOptions = Field(AttackOptions(steps=10), description="how training images are attacked")

    @property
    def trains_against(self) -> ThreatOptions:
        return self.threat

    def effective(self, progress: NDArray[np.float64]) -> dict[str, Any]:
        return super().effective(progress) | {"attack": attack_from(self.attack, threat_from(self.threat)).settings}


class AttackedFromBeside(Attacked):
    """One whose attack begins with a little noise beside the image, whatever `attack.random_start` says."""

    def effective(self, progress: NDArray[np.float64]) -> dict[str, Any]:
        options = super().effective(progress)
        options["attack"].pop("random_start")
        return options

    def from_beside(
        self, learner: Learner, images: Images, reference: Reference, generator: torch.Generator, *, raising: AttackLoss
    ) -> Images:
        """Return the images attacked by raising a loss against a reference."""
        threat = threat_from(self.threat)
        noise = normal_like(images, std=_START_NOISE, generator=generator)
        start = threat.project(images + noise, images)
        return attack_from(self.attack, threat)(learner.attackable, images, reference, loss=raising, start=start)
