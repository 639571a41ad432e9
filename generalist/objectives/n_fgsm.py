"""N-FGSM: adversarial training by one step from strong noise, without a projection."""

from typing import ClassVar, Literal

from pydantic import Field

from generalist.attacks.gradient import input_gradient
from generalist.attacks.losses import cross_entropy
from generalist.config import Quantity
from generalist.config.bounds import NonNegative, Positive
from generalist.objectives.attacked import Threatened, mean_cross_entropy
from generalist.objectives.contract import Context, Learner, Loss
from generalist.tensors import Batch, Images
from generalist.threats import threat_from


class NFgsm(Threatened):
    """CE(f(x'), y), x' one step from noise around the image (de Jorge et al., NeurIPS 2022).

    The noise fills a ball of several eps, and what the step adds stays: x' may lie outside of the threat's ball, but
    not of the pixel range.
    """

    has_label_loss: ClassVar[bool] = True

    name: Literal["n_fgsm"]
    noise: NonNegative = Field(Quantity(2), description="radius of the noise over eps")
    step: Positive = Field(Quantity(1), description="length of the step over eps")

    @property
    def gradients_per_image(self) -> int:
        return 1

    def attacked(self, context: Context, learner: Learner, batch: Batch) -> Images:
        threat, images = threat_from(self.threat), batch.images
        ball = threat.geometry(images, float(self.noise) * float(threat.eps))
        noisy = ball.random_offset(context.generator).add_(images).clamp_(0, 1)
        slope = input_gradient(learner.frozen, noisy, batch.labels, cross_entropy)
        return noisy.add_(ball.steepest_ascent(slope), alpha=float(self.step) * float(threat.eps)).clamp_(0, 1)

    def loss(self, context: Context, learner: Learner, batch: Batch, attacked: Images) -> Loss:
        """Return the mean cross-entropy on the attacked images."""
        return mean_cross_entropy(learner, batch, attacked)
