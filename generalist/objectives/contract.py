"""What an objective gets and gives."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, SerializeAsAny
from torch import Tensor, nn
from torch.nn import functional as F

from generalist import engine
from generalist.config import ModelOptions, ObjectiveOptions, Schedule, ThreatOptions, canonical
from generalist.config.section import plugin
from generalist.models import Classifier, Role
from generalist.tensors import AttackedImages, Batch, Labels, Logits, PerImage


@dataclass(frozen=True)
class Peer:
    """Another expert that trains at the same steps, as it is before any of them trains on its batch.

    Attributes:
        network: like `Learner.frozen`, with statistics of BatchNorm that stay while the step is taken.
        attacked: what its own objective made of the same batch, with augmentations of its own; None in `attacked`.
    """

    network: engine.FrozenNetwork
    attacked: AttackedImages | None = None


def label_loss(outputs: Mapping[Role, Tensor], labels: Labels, *, of: Role, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean cross-entropy of one role's raw outputs with the labels.

    Args:
        outputs: all raw outputs that the objective has, by the images that they are of.
        labels: int64 [batch].
        of: the role whose outputs are trained.
        label_smoothing: share of the target that goes to all classes alike.
    """
    return F.cross_entropy(outputs[of], labels, label_smoothing=label_smoothing)


@dataclass(frozen=True)
class Learner:
    """What an objective trains, and the fixed networks that it may compare it with.

    Attributes:
        model: in training mode, differentiable in its weights.
        frozen: the same weights in eval mode, differentiable in the images alone; its `view` says as what function.
            Valid until the next optimizer step.
        average: the same of the expert's own weight average, where the objective needs "averaging".
        teacher: the same of another expert as it ended, where the objective needs "teacher".
        peers: the other experts, in the configuration's order, where an objective needs "peers", without those that
            are not `seen_by_peers`.
        auxiliary: what its objective's `auxiliary` made, in training mode; None where that makes nothing.
        label_loss: the part of a loss that leads towards the labels, which an objective around another one may
            replace; one that asks for it says so by `has_label_loss`.
    """

    model: Classifier
    frozen: engine.FrozenNetwork
    average: engine.FrozenNetwork | None = None
    teacher: engine.FrozenNetwork | None = None
    peers: tuple[Peer, ...] = ()
    auxiliary: nn.Module | None = None
    label_loss: Callable[..., Tensor] = label_loss


@dataclass(frozen=True)
class Context:
    """One optimizer step, as an objective sees it.

    How far the training is reaches an objective through its schedules alone: these are resolved step by step in the
    keys of states, so that trainings that share a state agree in all that led to it.

    Attributes:
        generator: random numbers of this step; draw by `randomness.normal_like` and its sisters, which give every
            process the numbers of its own images.
        epoch: epochs of the training before this one.
        tables: the objective's own memory, see `Objective.tables`; to be changed in place, by `attacked` alone.
        group: the processes that share the batch.
    """

    generator: torch.Generator
    epoch: int = 0
    tables: Mapping[str, Tensor] = field(default_factory=dict)
    group: engine.ProcessGroup = field(default_factory=engine.ProcessGroup)
    _progress: float = 0.0

    def at(self, schedule: Schedule) -> float:
        """Return the value of a schedule at this step."""
        return schedule.at(self._progress)

    def batch_mean(self, values: PerImage) -> Tensor:
        """Return the mean over the whole batch, those images included that other processes hold: float32 []."""
        sum_and_count = torch.stack((values.sum(), torch.full_like(values[0], len(values))))
        total, count = engine.sum_in_rank_order(self.group.all_gather(sum_and_count))
        mean: Tensor = total / count
        return mean


@dataclass(frozen=True)
class Loss:
    """The value to minimise (a scalar) and the logits of the images trained on, for the training accuracy."""

    value: Tensor
    logits: Logits


class Objective(ObjectiveOptions):
    """Options of one objective, and its loss."""

    @property
    def trains_against(self) -> tuple[ThreatOptions, ...]:
        """The threats whose adversarial images it trains on; none for clean images alone."""
        return ()

    def effective(self, progress: NDArray[np.float64]) -> dict[str, Any]:
        """Return the options as they act on weights: objectives that do the same, however they are written, are equal.

        Args:
            progress: float64 [steps] in [0, 1], where schedules are asked for their values.
        """
        options: dict[str, Any] = canonical(self, progress)
        return options

    def tables(self, classes: int, images: int) -> dict[str, Tensor]:
        """Return what it remembers from step to step, as it begins: per class, or per training image (`Batch.ids`).

        Tables are a part of the expert's state. Several processes can't share the batches of an objective that has
        some.
        """
        return {}

    def auxiliary(self, model: Classifier) -> nn.Module | None:
        """Return what is trained along with a network and not deployed, such as a predictor of features.

        Its weights, which begin as `models.initialise` fills them, are a part of the expert's state, as tables are.
        Weight averages and perturbations are the network's alone.
        """
        return None

    def conditions(self, context: Context, learner: Learner, batch: Batch) -> PerImage | None:
        """Return lambda of each image, which the batch then has as its `condition`: drawn first in a step.

        The inner and the outer problem are at the same condition. None for networks that take none; those that take one
        are trained by objectives that need a "condition".
        """
        return None

    def attacked(self, context: Context, learner: Learner, batch: Batch) -> AttackedImages:
        """Return what an attack on the present weights makes of the batch: the inner maximisation, once a step.

        Args:
            context: of this step.
            learner: what is trained.
            batch: images in [0, 1] on the learner's device.

        Returns:
            float32 [batch, C, H, W], or [batch, attacks, C, H, W] of several attacks; the clean images where nothing
            is attacked. The second views of images, or images without labels, follow the first where they are attacked,
            too.
        """
        return batch.images

    @abstractmethod
    def loss(self, context: Context, learner: Learner, batch: Batch, attacked: AttackedImages) -> Loss:
        """Return the mean loss on a batch: the outer minimisation.

        It may be asked for more than once a step, at other weights, so it draws no random numbers and leaves tables as
        they are. The mean is over the batch's images, and nothing but a BatchNorm in training joins them: processes
        that share a batch weigh their means by images.

        Args:
            context: of this step.
            learner: `learner.model` is differentiable in its weights.
            batch: images in [0, 1] on the model's device.
            attacked: what `attacked` gave.
        """


class Around(Objective):
    """An objective that changes another one, its base, and attacks as that does."""

    base: Annotated[
        SerializeAsAny[ObjectiveOptions], BeforeValidator(lambda written: plugin("objectives", written))
    ] = Field(description="the objective that it stands around, such as {name: trades, threat: …}")

    @property
    def own_base(self) -> Objective:
        """The base as what it is: each file of objectives has one."""
        assert isinstance(self.base, Objective)
        return self.base

    def check_model(self, model: ModelOptions) -> None:
        self.base.check_model(model)

    @property
    def trains_against(self) -> tuple[ThreatOptions, ...]:
        return self.own_base.trains_against

    @property
    def gradients_per_image(self) -> int:
        return self.base.gradients_per_image

    def effective(self, progress: NDArray[np.float64]) -> dict[str, Any]:
        return super().effective(progress) | {"base": self.own_base.effective(progress)}

    def tables(self, classes: int, images: int) -> dict[str, Tensor]:
        return self.own_base.tables(classes, images)

    def auxiliary(self, model: Classifier) -> nn.Module | None:
        return self.own_base.auxiliary(model)
