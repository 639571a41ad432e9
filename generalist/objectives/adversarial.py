"""Adversarial training with projected gradient descent, known as PGD-AT."""

from typing import ClassVar, Literal

from generalist.objectives.attacked import Attacked, mean_cross_entropy
from generalist.objectives.contract import Context, Learner, Loss
from generalist.tensors import Batch, Images


class Adversarial(Attacked):
    """Cross-entropy on images attacked by PGD (Madry et al., ICLR 2018, equation 2.1)."""

    has_label_loss: ClassVar[bool] = True

    name: Literal["adversarial"]

    def attacked(self, context: Context, learner: Learner, batch: Batch) -> Images:
        return self.by_cross_entropy(context, learner, batch)

    def loss(self, context: Context, learner: Learner, batch: Batch, attacked: Images) -> Loss:
        """Return the mean cross-entropy on the attacked images."""
        return mean_cross_entropy(learner, batch, attacked)
