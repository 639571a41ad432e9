"""Plain training on clean images."""

from typing import Annotated, Literal

from pydantic import Field
from torch.nn import functional as F

from generalist.config import Quantity
from generalist.objectives.contract import Context, Learner, Loss, Objective
from generalist.tensors import Batch, Images


class Natural(Objective):
    """Cross-entropy on clean images."""

    name: Literal["natural"]
    label_smoothing: Annotated[Quantity, Field(ge=0, lt=1)] = Quantity(0)

    def loss(self, context: Context, learner: Learner, batch: Batch, attacked: Images) -> Loss:
        """Return the mean cross-entropy on the clean images."""
        model = learner.model
        raw = model(batch.images)
        target = model.targets(batch.labels, "natural")
        return Loss(F.cross_entropy(raw, target, label_smoothing=self.label_smoothing), model.decision(raw))
