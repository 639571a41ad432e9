"""CFA: class-wise calibrated fair adversarial training, on PGD-AT."""

from typing import ClassVar, Literal

from generalist.objectives.attacked import ByClass, mean_cross_entropy
from generalist.objectives.contract import Context, Learner, Loss
from generalist.tensors import Batch, Images


class Cfa(ByClass):
    """CE(f(x'), y), x' by PGD within (floor + t_y) eps (Wei et al., CVPR 2023).

    t_y is the robust accuracy of the image's class in the epoch of training before, within the class's own radius.
    """

    has_label_loss: ClassVar[bool] = True

    name: Literal["cfa"]

    def attacked(self, context: Context, learner: Learner, batch: Batch) -> Images:
        self.begin(context)
        scale = self.factor(context, batch.labels, float(self.floor))
        attacked = self.by_cross_entropy(context, learner, batch, scale=scale)
        self.count(context, learner, batch, attacked)
        return attacked

    def loss(self, context: Context, learner: Learner, batch: Batch, attacked: Images) -> Loss:
        """Return the mean cross-entropy on the attacked images."""
        return mean_cross_entropy(learner, batch, attacked)
