"""The algebra of mixing: the moving average of the experts' mixture, split into one share per expert.

With weights theta_k(s) of expert k after step s,

    theta_g(s) = a_s theta_g(s-1) + (1 - a_s) sum_k w_k(s) theta_k(s),    sum_k w_k(s) = 1

(Generalist, CVPR 2023, algorithm 1). The recursion is linear, so it splits exactly into shares

    S_k(s) = a_s S_k(s-1) + (1 - a_s) w_k(s) theta_k(s),                  theta_g(s) = sum_k S_k(s),

each of which depends on its own expert's trajectory alone: between two rounds the experts need nothing
from each other. Buffers such as BatchNorm's running statistics are averaged like weights; integers are copied.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from generalist.config import Config, Schedule
from generalist.tensors import Weights

Values = NDArray[np.float64]


@dataclass(frozen=True)
class MixingSchedule:
    """One expert's mixing weight w_k(s) and the decay a_s after each step: float64 [total + 1], from the start."""

    weight: Values
    decay: Values


def ema_decay_with_warmup(schedule: Schedule, total: int) -> Values:
    """Return a decay by step, limited to (s + 1) / (s + 10): an average of few steps should not dwell on its start.

    The ramp is that of the authors' published code. Returns float64 [total + 1].
    """
    steps = np.arange(total + 1, dtype=np.float64)
    return np.minimum(schedule.values(0, total + 1, total), (steps + 1) / (steps + 10))


def mixing_schedules(config: Config, total: int) -> dict[str, MixingSchedule]:
    """Return each expert's mixing weight and decay over `total` steps; empty where nothing is mixed."""
    if config.mixing is None:
        return {}
    decay = ema_decay_with_warmup(config.mixing.decay, total)
    return {
        name: MixingSchedule(weight.along(np.arange(total + 1, dtype=np.float64) / total), decay)
        for name, weight in config.mixing_weights().items()
    }


class RunningAverage:
    """A running combination of weights, updated in place step by step.

    Floating point tensors are combined, all in one call; others hold the latest value.
    """

    def __init__(self, start: Mapping[str, torch.Tensor], factor: float = 1.0) -> None:
        """Start at `factor` times the given weights (of which copies are made)."""
        self.weights: Weights = {
            name: tensor.detach() * factor if tensor.is_floating_point() else tensor.detach().clone()
            for name, tensor in start.items()
        }
        self._floating = [name for name, tensor in self.weights.items() if tensor.is_floating_point()]
        self._own = [self.weights[name] for name in self._floating]
        self._copied = [name for name in self.weights if name not in set(self._floating)]

    @torch.no_grad()
    def update(self, weights: Mapping[str, torch.Tensor], keep: float, add: float) -> None:
        """Set own weights := keep * own + add * given."""
        torch._foreach_mul_(self._own, keep)
        torch._foreach_add_(self._own, [weights[name] for name in self._floating], alpha=add)
        for name in self._copied:
            self.weights[name].copy_(weights[name])


def weighted_sum(shares: Sequence[Mapping[str, torch.Tensor]], factors: Sequence[float] | None = None) -> Weights:
    """Return the sum of shares (or, with factors, the mixture of weights), always added up in the given order."""
    factors = [1.0] * len(shares) if factors is None else factors
    total = RunningAverage(shares[0], factors[0])
    for share, factor in zip(shares[1:], factors[1:], strict=True):
        total.update(share, 1.0, factor)
    return {
        name: tensor if tensor.is_floating_point() else shares[0][name].clone()
        for name, tensor in total.weights.items()
    }
