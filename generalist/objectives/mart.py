"""MART: adversarial training that weighs images by how badly their clean versions are classified."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch.nn import functional as F

from generalist.attacks.losses import cross_entropy, kl_divergence
from generalist.config import Schedule
from generalist.config.bounds import NonNegativeSchedule
from generalist.objectives.attacked import AttackedFromBeside
from generalist.objectives.contract import Context, Learner, Loss
from generalist.tensors import Batch, Images

_ABOVE_ONE, _ABOVE_WEIGHT = 1.0001, 1.0000001
"""Where the published code keeps log(1 - p) and the weight 1 - p above 0."""


class Mart(AttackedFromBeside):
    """BCE(f(x'), y) + beta KL(f(x) || f(x')) (1 - p_y(x)), x' by PGD (Wang et al., ICLR 2020, and their code).

    BCE is -log p_y(x') - log(1 - max of the other p_k(x')). As in the published code, gradients flow
    through the weight 1 - p_y(x), too.
    """

    has_label_loss: ClassVar[bool] = True

    name: Literal["mart"]
    beta: NonNegativeSchedule = Field(Schedule.model_validate(5), description="weight of the divergence")

    def attacked(self, context: Context, learner: Learner, batch: Batch) -> Images:
        return self.from_beside(context, learner.frozen, batch.images, batch.labels, raising=cross_entropy)

    def loss(self, context: Context, learner: Learner, batch: Batch, attacked: Images) -> Loss:
        """Return the mean of both terms; training accuracy is that on the attacked images."""
        model = learner.model
        raw, raw_attacked = model(batch.images), model(attacked)
        labels = batch.labels[:, None]
        others = raw_attacked.softmax(dim=1).scatter(1, labels, 0.0).amax(dim=1)
        outputs = {"natural": raw, "adversarial": raw_attacked}
        boosted = learner.label_loss(outputs, batch.labels, of="adversarial") - torch.log(_ABOVE_ONE - others).mean()
        doubted = _ABOVE_WEIGHT - raw.softmax(dim=1).gather(1, labels).squeeze(1)
        moved = kl_divergence(raw_attacked, F.log_softmax(raw, dim=1))
        return Loss(boosted + context.at(self.beta) * (moved * doubted).mean(), model.decision(raw_attacked))
