"""GAT: guided adversarial training, by one step that is guided by the clean prediction."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from generalist.attacks import pgd
from generalist.attacks.losses import squared_distance
from generalist.config import Quantity, Schedule
from generalist.config.bounds import NonNegativeSchedule
from generalist.objectives.attacked import Threatened
from generalist.objectives.contract import Context, Learner, Loss
from generalist.randomness import uniform_like
from generalist.tensors import Batch, Images, Logits, PerImage
from generalist.threats import threat_from

_RISE = Quantity("86/100")  # where the published code takes the fourfold weight


class Gat(Threatened):
    """CE(f(x), y) + r ||p(x) - p(x')||^2, x' by one step up CE(f(x'), y) + r ||p(x) - p(x')||^2.

    Sriramanan et al., NeurIPS 2020, and their code; p are probabilities. The step is eps long and begins at random
    signs of half of it. For half of the images, drawn anew in each step, it goes up the cross-entropy alone.
    """

    has_label_loss: ClassVar[bool] = True

    name: Literal["gat"]
    relaxation: NonNegativeSchedule = Field(
        Schedule.model_validate([[0, 10], [_RISE, 10], [_RISE, 40]]),
        description="r, weight of the squared distance of probabilities, in the attack and in the loss",
    )

    @property
    def gradients_per_image(self) -> int:
        return 1

    def attacked(self, context: Context, learner: Learner, batch: Batch) -> Images:
        threat, images = threat_from(self.threat), batch.images
        signs = uniform_like(images, -1.0, 1.0, generator=context.generator)
        start = images + threat.geometry.steepest_ascent(signs) * (float(threat.eps) / 2)
        guided = uniform_like(images[:, 0, 0, :1], -1.0, 1.0, generator=context.generator) < 0
        with torch.no_grad():
            clean = learner.frozen(images).softmax(dim=1)
        hard = F.one_hot(batch.labels, clean.shape[1])
        reference = torch.cat((hard, clean, guided * context.at(self.relaxation)), dim=1)
        return pgd(
            learner.frozen, images, reference, threat, steps=1, step_size=float(threat.eps), loss=_guided, start=start
        )

    def loss(self, context: Context, learner: Learner, batch: Batch, attacked: Images) -> Loss:
        """Return the mean of both terms; training accuracy is that on the attacked images."""
        model = learner.model
        raw, raw_attacked = model(batch.images), model(attacked)
        natural = learner.label_loss({"natural": raw, "adversarial": raw_attacked}, batch.labels, of="natural")
        apart = squared_distance(raw.softmax(dim=1), raw_attacked.softmax(dim=1)).mean()
        return Loss(natural + context.at(self.relaxation) * apart, model.decision(raw_attacked))


def _guided(outputs: Logits, reference: Tensor) -> PerImage:
    """Return the loss of the attack, against labels as probabilities, clean probabilities, and r, side by side."""
    hard, clean, weight = reference.split((outputs.shape[1], outputs.shape[1], 1), dim=1)
    apart = squared_distance(outputs.softmax(dim=1), clean)
    value: PerImage = F.cross_entropy(outputs, hard, reduction="none") + weight.squeeze(1) * apart
    return value
