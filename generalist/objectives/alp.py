"""Adversarial logit pairing: the cross-entropy of both images, and their logits drawn together."""

from typing import Literal

from pydantic import Field
from torch.nn import functional as F

from generalist.attacks import attack_from
from generalist.config import Schedule
from generalist.config.bounds import NonNegativeSchedule
from generalist.objectives.attacked import Attacked
from generalist.objectives.contract import Context, Learner, Loss
from generalist.tensors import Batch, Images
from generalist.threats import threat_from


class Alp(Attacked):
    """(CE(f(x'), y) + CE(f(x), y)) / 2 + beta MSE(f(x'), f(x)), x' by PGD on the cross-entropy.

    As the second peer of CAT has it (Liu et al., arXiv 2303.14922, and their code), after Kannan et al., 2018. The mean
    square is over images and logits; gradients flow through both sides.
    """

    name: Literal["alp"]
    beta: NonNegativeSchedule = Field(Schedule.model_validate(1), description="weight of the squared distance")

    def attacked(self, context: Context, learner: Learner, batch: Batch) -> Images:
        attack = attack_from(self.attack, threat_from(self.threat))
        return attack(learner.frozen, batch.images, batch.labels, generator=context.generator)

    def loss(self, context: Context, learner: Learner, batch: Batch, attacked: Images) -> Loss:
        """Return the sum; training accuracy is that on the attacked images."""
        model = learner.model
        raw, raw_attacked = model(batch.images), model(attacked)
        natural = F.cross_entropy(raw, batch.labels)
        robust = F.cross_entropy(raw_attacked, batch.labels)
        apart = F.mse_loss(raw_attacked, raw)
        return Loss((natural + robust) / 2 + context.at(self.beta) * apart, model.decision(raw_attacked))
