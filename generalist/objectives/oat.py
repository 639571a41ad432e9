"""Once-for-all adversarial training: one network for every balance of natural and robust accuracy."""

import math
from typing import ClassVar, Literal

import torch
from torch.nn import functional as F

from generalist.attacks import attack_from
from generalist.objectives.attacked import Attacked
from generalist.objectives.contract import Context, Learner, Loss
from generalist.randomness import uniform_like
from generalist.tensors import Batch, Images, PerImage
from generalist.threats import threat_from


class Oat(Attacked):
    """mean_i (1 - l_i) CE(f(x_i; l_i), y_i) + l_i CE(f(x'_i; l_i), y_i), x' by PGD on f(.; l) (Wang et al., 2020).

    l is the image's condition. As in the published code, the first 1/k of each batch, rounded up, has l = 0 for k
    choices, and is not attacked; each other image has one of the others, all alike.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"condition"})

    name: Literal["oat"]

    def conditions(self, context: Context, learner: Learner, batch: Batch) -> PerImage:
        encoding = learner.model.encoding
        assert encoding is not None  # the configuration is refused without
        others = batch.images.new_tensor(encoding.choices[1:])
        drawn = uniform_like(batch.images.new_empty(len(batch)), 0.0, 1.0, generator=context.generator)
        condition = others[(drawn * len(others)).long().clamp_max(len(others) - 1)]
        condition[: math.ceil(len(batch) / len(encoding.choices))] = 0
        return condition

    def attacked(self, context: Context, learner: Learner, batch: Batch) -> Images:
        condition, rows = _with_attacks(batch)
        attack = attack_from(self.attack, threat_from(self.threat))
        network = learner.frozen.at(condition[rows])
        points = attack(network, batch.images[rows], batch.labels[rows], generator=context.generator)
        return batch.images.index_copy(0, rows, points)

    def loss(self, context: Context, learner: Learner, batch: Batch, attacked: Images) -> Loss:
        """Return the mean of both terms; training accuracy is that on the attacked images, and the clean ones of l = 0.

        All clean images go first, then the attacked ones: BatchNorm's statistics for l > 0 follow both.
        """
        model, (condition, rows) = learner.model, _with_attacks(batch)
        raw, raw_attacked = model(batch.images, condition), model(attacked[rows], condition[rows])
        natural = F.cross_entropy(raw, batch.labels, reduction="none")
        robust = F.cross_entropy(raw_attacked, batch.labels[rows], reduction="none")
        total = ((1 - condition) * natural).sum() + (condition[rows] * robust).sum()
        seen = raw.detach().index_copy(0, rows, raw_attacked.detach())
        return Loss(total / len(batch), model.decision(seen))


def _with_attacks(batch: Batch) -> tuple[PerImage, torch.Tensor]:
    """Return all conditions, and the places of those above 0: int64."""
    assert batch.condition is not None  # `conditions` gave it
    return batch.condition, batch.condition.nonzero()[:, 0]
