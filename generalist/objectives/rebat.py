"""ReBAT: adversarial training held near its own weight average after the learning rate falls."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch.nn import functional as F

from generalist.attacks.losses import kl_divergence
from generalist.config import Quantity, Schedule
from generalist.config.bounds import NonNegativeSchedule
from generalist.objectives.attacked import Attacked
from generalist.objectives.contract import Context, Learner, Loss
from generalist.tensors import Batch, Images

_FROM = Quantity("105/200")  # where the published code begins to average and to compare


class Rebat(Attacked):
    """CE(f(x'), y) + beta KL(f_WA(x') || f(x')), x' by PGD, f_WA the expert's own average (Wang et al., NeurIPS 2023).

    The average is in eval mode and takes no gradient.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"averaging"})
    has_label_loss: ClassVar[bool] = True

    name: Literal["rebat"]
    beta: NonNegativeSchedule = Field(
        Schedule.model_validate([[0, 0], [_FROM, 0], [_FROM, 1]]), description="weight of the divergence"
    )

    def attacked(self, context: Context, learner: Learner, batch: Batch) -> Images:
        return self.by_cross_entropy(context, learner, batch)

    def loss(self, context: Context, learner: Learner, batch: Batch, attacked: Images) -> Loss:
        """Return the mean of both terms; training accuracy is that on the attacked images."""
        model, beta = learner.model, context.at(self.beta)
        raw = model(attacked)
        value = learner.label_loss({"adversarial": raw}, batch.labels, of="adversarial")
        if beta:
            assert learner.average is not None  # the configuration is refused without one
            with torch.no_grad():
                steady = F.log_softmax(learner.average(attacked), dim=1)
            value = value + beta * kl_divergence(raw, steady).mean()
        return Loss(value, model.decision(raw))
