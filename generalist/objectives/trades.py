"""TRADES: natural cross-entropy plus a penalty on how far an attack moves the prediction."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch.nn import functional as F

from generalist.attacks.losses import kl_divergence
from generalist.config import Schedule
from generalist.config.bounds import NonNegativeSchedule
from generalist.objectives.attacked import AttackedFromBeside
from generalist.objectives.contract import Context, Learner, Loss
from generalist.tensors import Batch, Images


class Trades(AttackedFromBeside):
    """CE(f(x), y) + beta KL(f(x) || f(x')), x' by ascent on the divergence (Zhang et al., ICML 2019, equation 5).

    The attack can't begin at the image itself, where the divergence has no gradient.
    """

    has_label_loss: ClassVar[bool] = True

    name: Literal["trades"]
    beta: NonNegativeSchedule = Field(Schedule.model_validate(6), description="weight of the divergence")

    def attacked(self, context: Context, learner: Learner, batch: Batch) -> Images:
        with torch.no_grad():
            clean = F.log_softmax(learner.frozen(batch.images), dim=1)
        return self.from_beside(context, learner.frozen, batch.images, clean, raising=kl_divergence)

    def loss(self, context: Context, learner: Learner, batch: Batch, attacked: Images) -> Loss:
        """Return the sum of both terms; training accuracy is that on the attacked images."""
        model = learner.model
        raw, raw_attacked = model(batch.images), model(attacked)
        natural = learner.label_loss({"natural": raw, "adversarial": raw_attacked}, batch.labels, of="natural")
        robust = F.kl_div(
            F.log_softmax(raw_attacked, dim=1), F.log_softmax(raw, dim=1), reduction="batchmean", log_target=True
        )
        return Loss(natural + context.at(self.beta) * robust, model.decision(raw_attacked))
