"""What an objective gets and gives."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from generalist.config import ObjectiveOptions, ThreatOptions, canonical
from generalist.models import Classifier
from generalist.tensors import Batch, Images, Logits


@dataclass(frozen=True)
class Learner:
    """What an objective trains.

    Attributes:
        model: in training mode, differentiable in its weights.
        attackable: the same weights as a function from images to logits, in eval mode and
            differentiable in the images alone; valid until the next optimizer step.
    """

    model: Classifier
    attackable: Callable[[Images], Logits]


@dataclass(frozen=True)
class Loss:
    """The value to minimise (a scalar) and the logits of the images trained on, for the training accuracy."""

    value: Tensor
    logits: Logits


class Objective(ObjectiveOptions):
    """Options of one objective, and its loss."""

    @property
    def trains_against(self) -> ThreatOptions | None:
        """The threat whose adversarial images it trains on; None for clean images alone."""
        return None

    def effective(self, progress: NDArray[np.float64]) -> dict[str, Any]:
        """Return the options as they act on weights: objectives that do the same, however they are written, are equal.

        Args:
            progress: float64 [steps] in [0, 1], where schedules are asked for their values.
        """
        options: dict[str, Any] = canonical(self, progress)
        return options

    def attacked(self, learner: Learner, batch: Batch, generator: torch.Generator) -> Images:
        """Return what an attack on the present weights makes of the batch: the inner maximisation, once a step.

        Args:
            learner: what is trained.
            batch: images in [0, 1] on the learner's device.
            generator: random numbers of this step; draw by `randomness.normal_like` and its sisters, which give
                every process the numbers of its own images.

        Returns:
            float32 [batch, C, H, W]; the clean images where nothing is attacked.
        """
        return batch.images

    @abstractmethod
    def loss(self, model: Classifier, batch: Batch, attacked: Images) -> Loss:
        """Return the mean loss on a batch: the outer minimisation.

        It may be asked for more than once a step, at other weights, so it draws no random numbers. The mean is over
        the batch's images, and nothing but a BatchNorm in training joins them: processes that share a batch weigh
        their means by images.

        Args:
            model: in training mode, differentiable in its weights.
            batch: images in [0, 1] on the model's device.
            attacked: what `attacked` gave.
        """
