"""Mixing the experts of a finished training anew, with other weights, at no training cost.

An expert's share of the global learner is a weighted sum over its trajectory (see `generalist.mixing`),

    S_k(s) = a_s S_k(s-1) + (1 - a_s) w_k(s) theta_k(s),    S_k(0) = w_k(0) theta_k(0),

so with the sum of those weights, which follows from the mixing schedule alone,

    n_k(s) = a_s n_k(s-1) + (1 - a_s) w_k(s),               n_k(0) = w_k(0),    sum_k n_k(s) = 1,

S_k / n_k is a weighted mean of the trajectory: the averaged expert. Any mixture of averaged experts is a learner,
and with the weights n_k it is the global learner as it was trained.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from generalist import engine
from generalist.config import AttackOptions, EvaluationOptions
from generalist.data import steps_per_epoch
from generalist.errors import BadInput
from generalist.mixing import MixingSchedule, mixing_schedules, weighted_sum
from generalist.records import Measured
from generalist.tensors import Weights
from generalist.training.keys import CheckpointRefs
from generalist.training.trainer import Trainer
from generalist.training.validation import Validator

LEAST = 1e-3
"""An expert with less of the mixture than this has no mean worth the name."""

Attack = AttackOptions | EvaluationOptions
"""An attack, or the cascade of an evaluation."""


@dataclass(frozen=True)
class AveragedExperts:
    """The averaged experts of a training.

    Attributes:
        shares: each expert's share of the global learner, S_k.
        coefficients: the sum of the weights in it, n_k; they sum to one.
    """

    shares: dict[str, Weights]
    coefficients: dict[str, float]

    def expert(self, name: str) -> Weights:
        """Return one averaged expert; integers are copied."""
        return mix_averaged(self, {name: 1.0})


@dataclass(frozen=True)
class MeasuredMixture:
    """A mixture of averaged experts on the validation split; `factors` are by expert and sum to one."""

    factors: dict[str, float]
    validation: Measured


def averaged_experts(training: Trainer, positions: CheckpointRefs) -> AveragedExperts:
    """Return the averaged experts where all experts stand.

    Raises:
        BadInput: nothing is mixed, or an expert was hardly ever in the mixture.
        StateLost: the store does not hold a share.
    """
    config = training.config
    per_epoch = steps_per_epoch(len(training.dataset.train), config.training.batch_size)
    by_expert = mixing_schedules(config, per_epoch * config.training.epochs)
    if not by_expert:
        raise BadInput("a training without mixing has nothing to mix again: give it a section `mixing`")
    coefficients = {
        name: coefficient(schedule, positions[name].epoch * per_epoch) for name, schedule in by_expert.items()
    }
    for name, amount in coefficients.items():
        if amount < LEAST:
            raise BadInput(
                f"expert {name} has {amount:.2g} of the mixture after epoch {positions[name].epoch}, too little to mix"
                " it again: train with more of it in mixing.weights"
            )
    shares = {name: share for name in by_expert if (share := positions[name].share) is not None}
    return AveragedExperts({name: training.states.weights(key) for name, key in shares.items()}, coefficients)


def coefficient(schedule: MixingSchedule, step: int) -> float:
    """Return the sum of all weights in a share after some steps, n_k."""
    total = float(schedule.weight[0])
    for weight, keep in zip(schedule.weight[1 : step + 1].tolist(), schedule.decay[1 : step + 1].tolist(), strict=True):
        total = keep * total + (1.0 - keep) * weight
    return total


def mix_averaged(averaged: AveragedExperts, factors: Mapping[str, float]) -> Weights:
    """Return a mixture of averaged experts; one without a factor is left out.

    The shares themselves are added up, so that the coefficients give the global learner back to the bit.
    """
    names = [name for name in averaged.shares if factors.get(name)]
    return weighted_sum(
        [averaged.shares[name] for name in names], [factors[name] / averaged.coefficients[name] for name in names]
    )


def simplex(parts: int, count: int) -> Iterator[tuple[float, ...]]:
    """Yield points of a regular grid over all weights that sum to one, `count` along each edge, the corners among them.

    Raises:
        BadInput: fewer than two points.
    """
    if count < 2:
        raise BadInput(f"a sweep of {count} points has no ends: take 2 points at least")
    for whole in _compositions(parts, count - 1):
        yield tuple(part / (count - 1) for part in whole)


def _compositions(parts: int, total: int) -> Iterator[tuple[int, ...]]:
    """Yield all ways to write a number as a sum of so many parts, the largest first parts first."""
    if parts == 1:
        yield (total,)
        return
    for first in range(total, -1, -1):
        for rest in _compositions(parts - 1, total - first):
            yield (first, *rest)


def sweep(training: Trainer, averaged: AveragedExperts, attack: Attack, count: int) -> list[MeasuredMixture]:
    """Return mixtures over a grid, `count` along each edge, and the global learner as trained, in order of weights.

    Raises:
        BadInput: fewer than two points.
    """
    names = tuple(averaged.coefficients)
    trained = tuple(averaged.coefficients.values())
    grid = [point for point in simplex(len(names), count) if math.dist(point, trained) > LEAST]
    points = sorted([*grid, trained], reverse=True)
    return measure_mixtures(training, averaged, [dict(zip(names, point, strict=True)) for point in points], attack)


def measure_mixtures(
    training: Trainer, averaged: AveragedExperts, mixtures: Sequence[Mapping[str, float]], attack: Attack
) -> list[MeasuredMixture]:
    """Measure mixtures on the validation split by an attack; the same one is never measured twice."""
    measuring = Validator(training.config, training.dataset, training.store, training.states)
    with engine.threads(training.config.training.threads):
        return [
            MeasuredMixture(dict(mixture), measuring.any_learner(mix_averaged(averaged, mixture), attack))
            for mixture in mixtures
        ]


def rank_mixtures(
    mixtures: Sequence[MeasuredMixture], averaged: AveragedExperts, *, value: Callable[[Measured], float]
) -> list[MeasuredMixture]:
    """Return the best first; of equals, the one nearest to the global learner as it was trained."""

    def distance(mixture: MeasuredMixture) -> float:
        return math.dist(list(mixture.factors.values()), [averaged.coefficients[name] for name in mixture.factors])

    return sorted(mixtures, key=lambda mixture: (-value(mixture.validation), distance(mixture)))


def best_remix(
    training: Trainer,
    positions: CheckpointRefs,
    *,
    value: Callable[[Measured], float],
    coarse: Attack,
    attack: Attack,
    count: int = 11,
) -> MeasuredMixture:
    """Return the best mixture of a sweep by the coarse attack, measured once more by the other one.

    Raises:
        BadInput: nothing is mixed, or an expert was hardly ever in the mixture.
        StateLost: the store does not hold a share.
    """
    averaged = averaged_experts(training, positions)
    best = rank_mixtures(sweep(training, averaged, coarse, count), averaged, value=value)[0]
    return measure_mixtures(training, averaged, [best.factors], attack)[0]
