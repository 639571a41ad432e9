"""What objectives on attacked images share: the threat, the attack, and how the published codes begin it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from generalist.attacks import attack_from
from generalist.attacks.losses import Loss as AttackLoss
from generalist.attacks.losses import Network
from generalist.config import AttackOptions, ThreatOptions
from generalist.objectives.contract import Context, Objective
from generalist.randomness import normal_like
from generalist.tensors import Images, PerImage
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
    def trains_against(self) -> tuple[ThreatOptions, ...]:
        return (self.threat,)

    def effective(self, progress: NDArray[np.float64]) -> dict[str, Any]:
        return super().effective(progress) | {"attack": attack_from(self.attack, threat_from(self.threat)).settings}


class AttackedFromBeside(Attacked):
    """One whose attack begins with a little noise beside the image, whatever `attack.random_start` says."""

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
