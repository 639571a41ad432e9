"""CFA: class-wise calibrated fair adversarial training, on TRADES."""

from typing import Literal

import torch
from pydantic import Field
from torch.nn import functional as F

from generalist.attacks.losses import kl_divergence
from generalist.config import Quantity, Schedule
from generalist.config.bounds import NonNegative, NonNegativeSchedule
from generalist.objectives.attacked import AttackedFromBeside, ByClass
from generalist.objectives.contract import Context, Learner, Loss
from generalist.tensors import Batch, Images


class CfaTrades(ByClass, AttackedFromBeside):
    """(CE(f(x), y) + b KL(f(x) || f(x'))) / (1 + b) with b = (beta_floor + t_y) beta (Wei et al., CVPR 2023).

    x' rises on the divergence within (floor + t_y) eps; t_y is the robust accuracy of the image's class in the epoch of
    training before.
    """

    name: Literal["cfa_trades"]
    floor: NonNegative = Field(Quantity("0.3"), description="share of eps of a class that never stands")
    beta: NonNegativeSchedule = Field(Schedule.model_validate(6), description="weight of the divergence")
    beta_floor: NonNegative = Field(Quantity("0.5"), description="share of beta of a class that never stands")

    def attacked(self, context: Context, learner: Learner, batch: Batch) -> Images:
        self.begin(context)
        with torch.no_grad():
            clean = F.log_softmax(learner.frozen(batch.images), dim=1)
        scale = self.factor(context, batch.labels, float(self.floor))
        attacked = self.from_beside(context, learner.frozen, batch.images, clean, raising=kl_divergence, scale=scale)
        self.count(context, learner, batch, attacked)
        return attacked

    def loss(self, context: Context, learner: Learner, batch: Batch, attacked: Images) -> Loss:
        """Return the mean of both terms, weighed by class; training accuracy is that on the attacked images."""
        model = learner.model
        raw, raw_attacked = model(batch.images), model(attacked)
        natural = F.cross_entropy(raw, batch.labels, reduction="none")
        robust = kl_divergence(raw_attacked, F.log_softmax(raw, dim=1))
        beta = context.at(self.beta) * self.factor(context, batch.labels, float(self.beta_floor))
        return Loss(((natural + beta * robust) / (1 + beta)).mean(), model.decision(raw_attacked))
