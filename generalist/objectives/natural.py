"""Plain training on clean images."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from generalist.config import Quantity
from generalist.objectives.contract import Context, Learner, Loss, Objective
from generalist.tensors import Batch, Images


class Natural(Objective):
    """Cross-entropy on clean images."""

    has_label_loss: ClassVar[bool] = True

    name: Literal["natural"]
    label_smoothing: Annotated[Quantity, Field(ge=0, lt=1)] = Quantity(0)

    def loss(self, context: Context, learner: Learner, batch: Batch, attacked: Images) -> Loss:
        """Return the mean cross-entropy on the clean images."""
        model = learner.model
        raw = model(batch.images)
        value = learner.label_loss({"natural": raw}, batch.labels, of="natural", label_smoothing=self.label_smoothing)
        return Loss(value, model.decision(raw))
