"""Optuna's samplers and pruners by name, seeded trial by trial; no point is drawn twice as long as others are left."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from generalist.config import TuningOptions, digest
from pipelines.tuning.space import Point, Space

_SAMPLERS: dict[str, Callable[[int, int], BaseSampler]] = {
    "tpe": lambda seed, startup: TPESampler(seed=seed, n_startup_trials=startup),
    "gp": lambda seed, startup: GPSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False),
    "nsga2": lambda seed, startup: NSGAIISampler(seed=seed, population_size=max(2, startup)),
    "random": lambda seed, _: RandomSampler(seed=seed),
    "grid": lambda seed, _: RandomSampler(seed=seed),  # trials have its points before they begin
}
"""By `tuning.sampler`, of a seed and the number of trials before they learn."""


class Untried:
    """What is left of a space, as trials take points."""

    def __init__(self, space: Space, trials: Callable[[], Sequence[FrozenTrial]]) -> None:
        """Keep track of what is left.

        Args:
            space: of all points.
            trials: all there are, in any state.
        """
        self.space, self._trials = space, trials

    def left(self, trial: FrozenTrial, chosen: Mapping[str, Any]) -> bool:
        """Return whether a point that no other trial has agrees with what a trial has chosen so far, and now.

        It looks at one point more than trials have, at most.
        """
        taken = {_key(other.params) for other in self._trials() if other.number != trial.number}
        begun: Point = {**trial.params, **chosen}
        return any(None in point.values() or _key(point) not in taken for point in self.space.points(begun))


def _key(point: Mapping[str, object]) -> frozenset[tuple[str, str]]:
    """Return the same key for equal points; numbers of a range with a step are not rounded alike everywhere."""
    return frozenset((path, f"{v:.12g}" if isinstance(v, int | float) else str(v)) for path, v in point.items())


class Keyed(BaseSampler):
    """A sampler made anew for each trial, seeded by (seed, the trial's number).

    A search that was interrupted then goes on as if it had not been: all the rest of a sampler's state is the history.
    A point that a trial has had is not drawn again as long as others are left.
    """

    def __init__(self, options: TuningOptions, untried: Untried) -> None:
        self._options, self._untried = options, untried
        self._own = self._sampler_for(0)
        self._together: dict[str, Any] = {}  # drawn for the trial, and not yet among its parameters

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._own, self._together = self._sampler_for(trial.number), {}
        self._own.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._own.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        drawn = self._own.sample_relative(study, trial, search_space)
        if not self._untried.left(trial, {}):
            return drawn
        for name, value in drawn.items():
            if self._untried.left(trial, {**self._together, name: value}):
                self._together[name] = value  # others are drawn on their own
        return self._together

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        drawn = self._own.sample_independent(study, trial, param_name, param_distribution)

        def left(value: Any) -> bool:
            return self._untried.left(trial, {**self._together, param_name: value})

        if left(drawn):
            return drawn
        others = [value for value in self._untried.space.drawn(param_name) or [] if left(value)]
        return others[np.random.default_rng(self._seed(trial.number)).integers(len(others))] if others else drawn

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._own.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """Do nothing: numbers are drawn by the trial's number."""

    def _sampler_for(self, number: int) -> BaseSampler:
        return _SAMPLERS[self._options.sampler](self._seed(number), self._options.startup_trials)

    def _seed(self, number: int) -> int:
        return int(digest(["tuning", self._options.seed, number])[:8], 16)


def pruner(options: TuningOptions, *, epochs: int) -> BasePruner:
    """Return the pruner of a search whose trainings have so many epochs; with two objectives none is possible."""
    if options.objective == "pareto" or options.pruner == "none":
        return NopPruner()
    if options.pruner == "hyperband":
        return HyperbandPruner(min_resource=options.rung, max_resource=epochs)
    return MedianPruner(n_startup_trials=options.startup_trials)
