"""Units: experts that advance together, epoch by epoch."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from generalist.config import Config, MixingOptions, Steps
from generalist.data import Resident, steps_per_epoch
from generalist.data import epoch as batches_of_epoch
from generalist.experts import Expert, Recipe, State
from generalist.mixing import combined
from generalist.tensors import Batch, ImageShape


@dataclass(frozen=True)
class EpochResult:
    """Means over one epoch of one expert, as trained on."""

    loss: float
    accuracy: float
    learning_rate: float
    images: int
    seconds: float


class Unit:
    """Experts that advance together: one as a rule, all of them where they are coupled within an epoch."""

    def __init__(self, experts: Sequence[Expert], mixing: MixingOptions | None) -> None:
        """`mixing` is given where the experts hand back between steps."""
        self.experts = list(experts)
        self._mixing = mixing

    @classmethod
    def revive(
        cls,
        config: Config,
        recipes: Sequence[Recipe],
        states: Sequence[State],
        shape: ImageShape,
        *,
        on: torch.device,
        coupled: bool,
    ) -> Self:
        """Bring states to life on a device; `coupled` units hand back between steps."""
        experts = [
            Expert(recipe, state, config.model, shape, on) for recipe, state in zip(recipes, states, strict=True)
        ]
        return cls(experts, config.mixing if coupled else None)

    def epoch(self, data: Resident) -> list[EpochResult]:
        """Train every expert for one epoch on the same batches, each with its own augmentation."""
        recipe = self.experts[0].recipe
        per_epoch = steps_per_epoch(len(data), recipe.batch_size)
        done = self.experts[0].epoch * per_epoch
        sums = [_Sums() for _ in self.experts]
        for index, batches in enumerate(zip(*(_batches(expert, data) for expert in self.experts), strict=True)):
            for expert, batch, total in zip(self.experts, batches, sums, strict=True):
                total.add(expert.step(batch, done + index + 1, index), len(batch))
            self._hand_back_between_steps(done + index + 1, per_epoch)
        for expert in self.experts:
            expert.epoch += 1
        rates = [expert.learning_rate(done + per_epoch) for expert in self.experts]
        return [total.result(rate) for rate, total in zip(rates, sums, strict=True)]

    def _hand_back_between_steps(self, step: int, steps_per_epoch: int) -> None:
        mixing = self._mixing
        if mixing is None or not isinstance(mixing.interval, Steps):
            return
        since = step - mixing.warm_up * steps_per_epoch
        if since % mixing.interval.steps or step >= self.experts[0].recipe.total:
            return
        if mixing.hand_back == "average":
            weights = combined([expert.share.weights for expert in self.experts if expert.share is not None])
        else:
            factors = [float(e.recipe.course.weight[step]) for e in self.experts if e.recipe.course is not None]
            weights = combined([expert.contribution for expert in self.experts], factors)
        for expert in self.experts:
            expert.take(weights, reset_momentum=mixing.momentum == "reset")


class _Sums:
    """Sums over an epoch that stay on the device until the end."""

    def __init__(self) -> None:
        self.loss: Tensor | float = 0.0
        self.correct: Tensor | int = 0
        self.images = 0
        self.seconds = 0.0
        self._since = time.perf_counter()

    def add(self, outcome: tuple[Tensor, Tensor], images: int) -> None:
        self.loss = self.loss + outcome[0].double()
        self.correct = self.correct + outcome[1]
        self.images += images

    def result(self, learning_rate: float) -> EpochResult:
        return EpochResult(
            loss=float(self.loss) / self.images,
            accuracy=int(self.correct) / self.images,
            learning_rate=learning_rate,
            images=self.images,
            seconds=time.perf_counter() - self._since,
        )


def _batches(expert: Expert, data: Resident) -> Iterator[Batch]:
    recipe = expert.recipe
    return batches_of_epoch(
        data, seed=recipe.seed, epoch=expert.epoch, batch_size=recipe.batch_size, augment=recipe.options.augment
    )
