"""Plain training on clean images."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch.nn import functional as F

from generalist.config import Quantity
from generalist.objectives.contract import Learner, Loss, Objective
from generalist.tensors import Batch


class Natural(Objective):
    """Cross-entropy on clean images."""

    name: Literal["natural"]
    label_smoothing: Annotated[Quantity, Field(ge=0, lt=1)] = Quantity(0)

    def loss(self, learner: Learner, batch: Batch, generator: torch.Generator) -> Loss:
        """Mean cross-entropy; the generator is not used."""
        raw = learner.model(batch.images)
        target = learner.model.targets(batch.labels, "natural")
        value = F.cross_entropy(raw, target, label_smoothing=self.label_smoothing)
        return Loss(value, learner.model.decision(raw))
