"""Consistency-AT: two augmentations of an image, attacked, shall be told alike."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch.nn import functional as F

from generalist.attacks.losses import kl_divergence
from generalist.config import Quantity, Schedule
from generalist.config.bounds import NonNegativeSchedule, Positive
from generalist.objectives.attacked import Attacked
from generalist.objectives.contract import Context, Learner, Loss
from generalist.tensors import Batch, Images, Logits, PerImage

_LEAST = 1e-8  # of a mean probability before its logarithm, as in the authors' code


class Consistency(Attacked):
    """(CE(f(x1'), y) + CE(f(x2'), y)) / 2 + weight JSD_T(f(x1') || f(x2')), both by PGD (Tack et al., AAAI 2022).

    x1 and x2 are two augmentations of an image. JSD_T is the Jensen-Shannon divergence at a temperature T; gradients
    flow through both sides.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"two_views"})

    name: Literal["consistency"]
    weight: NonNegativeSchedule = Field(Schedule.model_validate(1), description="weight of the divergence")
    temperature: Positive = Field(Quantity("0.5"), description="what logits are divided by in the divergence")

    @property
    def gradients_per_image(self) -> int:
        return 2 * self.attack.steps

    def attacked(self, context: Context, learner: Learner, batch: Batch) -> Images:
        views = [self.by_cross_entropy(context, learner, view) for view in batch.views()]
        return torch.cat(views)

    def loss(self, context: Context, learner: Learner, batch: Batch, attacked: Images) -> Loss:
        """Return the mean of both terms; training accuracy is that on the first view, attacked."""
        model = learner.model
        raw = model(attacked)
        wrong = F.cross_entropy(raw, torch.cat((batch.labels, batch.labels)))
        first, second = (raw / float(self.temperature)).chunk(2)
        value = wrong + context.at(self.weight) * _jensen_shannon(first, second).mean()
        return Loss(value, model.decision(raw[: len(batch)]))


def _jensen_shannon(first: Logits, second: Logits) -> PerImage:
    """Return the mean of both divergences from the mean prediction."""
    middle = (first.softmax(dim=1) + second.softmax(dim=1)).div(2).clamp_min(_LEAST).log()
    # The mean prediction as logits: its softmax is itself.
    apart = [kl_divergence(middle, F.log_softmax(side, dim=1)) for side in (first, second)]
    return (apart[0] + apart[1]) / 2
