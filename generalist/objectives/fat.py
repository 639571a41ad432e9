"""FAT: friendly adversarial training, whose attacks stop soon after the boundary."""

from typing import ClassVar, Literal

from pydantic import Field

from generalist.config import Quantity, Schedule
from generalist.config.bounds import NonNegativeSchedule
from generalist.objectives.attacked import Attacked, mean_cross_entropy
from generalist.objectives.contract import Context, Learner, Loss
from generalist.tensors import Batch, Images

_SECOND, _THIRD = Quantity("50/120"), Quantity("90/120")  # where tau rises in the published code


class Fat(Attacked):
    """CE(f(x'), y), x' by PGD that stops, image by image, tau steps after misclassification (Zhang et al., ICML 2020).

    With tau = attack.steps it is PGD-AT.
    """

    has_label_loss: ClassVar[bool] = True

    name: Literal["fat"]
    tau: NonNegativeSchedule = Field(
        Schedule.model_validate([[0, 0], [_SECOND, 0], [_SECOND, 1], [_THIRD, 1], [_THIRD, 2]]),
        description="steps that an image takes from misclassified points; of a fraction its whole part",
    )

    def attacked(self, context: Context, learner: Learner, batch: Batch) -> Images:
        return self.by_cross_entropy(context, learner, batch, patience=int(context.at(self.tau)))

    def loss(self, context: Context, learner: Learner, batch: Batch, attacked: Images) -> Loss:
        """Return the mean cross-entropy on the attacked images."""
        return mean_cross_entropy(learner, batch, attacked)
