"""Keys of states: a hash of all that decides a state, chained epoch by epoch.

A key does not depend on where the training was cut or what its experts are called, so trainings that
agree up to an epoch share the states up to there. A trajectory and its share of the global learner have
keys of their own: before the first redistribution a trajectory knows nothing of mixing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from generalist.code_digest import plugins_of, training_code
from generalist.config import Config, Steps, canonical, digest
from generalist.expert_state import ExpertSpec
from generalist.mixing import MixingSchedule
from generalist.objectives import Objective
from generalist.training.plan import Round

Key = str


@dataclass(frozen=True)
class CheckpointRef:
    """Where an expert stands: epochs done, and the keys of its trajectory and of its share of the global learner.

    `alternative_shares` are the keys of the shares for other mixings of its trajectory; `teacher` is where the
    expert stood that is its teacher.
    """

    epoch: int
    trajectory: Key
    share: Key | None
    alternative_shares: tuple[Key, ...] = ()
    teacher: "CheckpointRef | None" = None


CheckpointRefs = Mapping[str, CheckpointRef]
"""By expert."""
Cuts = dict[str, tuple[CheckpointRef, ...]]
"""Each expert's positions at the cuts of a round."""


class Keys:
    """The keys of one training."""

    def __init__(
        self,
        config: Config,
        specs: Mapping[str, ExpertSpec],
        *,
        data: str,
        shape: str,
        numerics: Any,
        per_epoch: int,
        tables: Mapping[str, str | None],
        initial: str | None = None,
    ) -> None:
        """Take digests of the data set, of the experts' first tables by name, and of weights to start from.

        `per_epoch` is the optimizer steps of an epoch.
        """
        self._config, self._specs, self._per_epoch = config, specs, per_epoch
        code = training_code(plugins_of(config.model))
        self._common = [canonical(config.model), shape, config.seed, numerics, code]
        self._data, self._initial, self._tables = data, initial, tables
        # The same epochs are asked for again and again, and written out they are long.
        self._epoch, self._mixing = cache(self._epoch_of), cache(self._mixing_of)

    def start(self, name: str) -> CheckpointRef:
        """Return an expert's position before the first step."""
        spec = self._specs[name]
        memory = [spec.options.averaging is not False, self._tables[name]]
        number = list(self._specs).index(name) if self._config.training.own_initial_weights else 0
        born = digest(["start", *self._common, memory, self._initial, *([number] if number else [])])
        share = None if spec.mixing is None else _first_share(born, spec.mixing)
        return CheckpointRef(
            0, born, share, tuple(_first_share(born, schedule) for schedule in spec.alternative_schedules)
        )

    def ahead(
        self, round_: Round, group: Sequence[str], positions: CheckpointRefs
    ) -> dict[str, dict[int, CheckpointRef]]:
        """Return each expert's position after every epoch of a round."""
        ahead: dict[str, dict[int, CheckpointRef]] = {name: {} for name in group}
        current = {name: positions[name] for name in group}
        if round_.coupled:  # they redistribute between steps, which parts them from those of other mixings
            current = {name: replace(position, alternative_shares=()) for name, position in current.items()}
        for epoch in range(round_.start, round_.stop):
            still = not round_.still.isdisjoint(group)
            group_key = self._group(group, current, epoch, meeting=round_.coupled) if len(group) > 1 else None
            for index, name in enumerate(group):
                done = ["still"] if still else [self._epoch(name, epoch), group_key and [group_key, index]]
                teacher = current[name].teacher
                trajectory = digest(["epoch", current[name].trajectory, teacher and teacher.trajectory, done])
                current[name] = ahead[name][epoch + 1] = self._followed(name, current[name], trajectory)
        return ahead

    def _followed(self, name: str, position: CheckpointRef, trajectory: Key) -> CheckpointRef:
        """Return a position one epoch further, where its trajectory has that key."""
        epoch = position.epoch

        def followed(share: Key, number: int) -> Key:
            return digest(["share", share, trajectory, self._mixing(name, number, epoch)])

        next_share = None if position.share is None else followed(position.share, 0)
        others = tuple(followed(share, number) for number, share in enumerate(position.alternative_shares, start=1))
        return CheckpointRef(epoch + 1, trajectory, next_share, others, position.teacher)

    def handed_back(self, name: str, last: CheckpointRefs, factors: Sequence[float]) -> CheckpointRef:
        """Return an expert's position after a redistribution at which all experts stand at `last`."""
        mixing = self._config.mixing
        assert mixing is not None  # the plan redistributes only where there is mixing
        if mixing.redistribute == "average":
            what: list[Any] = [position.share for position in last.values()]
        else:
            what = [[position.trajectory for position in last.values()], list(factors)]
        key = digest(["hand back", last[name].trajectory, mixing.redistribute, what, mixing.momentum])
        return CheckpointRef(last[name].epoch, key, last[name].share, (), last[name].teacher)

    def begun(self, name: str, last: CheckpointRefs) -> CheckpointRef:
        """Return an expert's position where it begins to train while the others stand at `last`."""
        options, position = self._specs[name].options, last[name]
        teacher = None if options.teacher is None else last[options.teacher]
        if options.start_from is None:
            return replace(position, teacher=teacher)
        key = digest(["start from", position.trajectory, last[options.start_from].trajectory])
        return replace(position, trajectory=key, teacher=teacher)

    def _epoch_of(self, name: str, epoch: int) -> list[Any]:
        """Return all that decides what an expert does in an epoch, but the state it starts from."""
        spec = self._specs[name]
        options = spec.options
        assert isinstance(options.objective, Objective)  # an `Expert` takes no other
        steps = range(epoch * self._per_epoch + 1, (epoch + 1) * self._per_epoch + 1)
        before = np.array([spec.progress(step) for step in steps])
        rates = [float(options.optimizer.lr) * options.schedule.at(progress) for progress in before]
        averaging: list[Any] | None = None
        if options.averaging is not False:
            averaging = [options.averaging.at((step - spec.begin) / spec.steps) for step in steps]
        if (gate := options.gate) is not None:
            averaging = [averaging, canonical(gate)]
        gating = set() if gate is None else {"generalist.training.gating"}
        written = canonical(options)
        return [
            self._data,
            canonical(self._config.training)["divergence"],
            [options.objective.effective(before), written["augment"], written["optimizer"] | {"lr": rates}],
            options.perturbation and canonical(options.perturbation, before),
            [averaging, epoch, spec.begin, spec.seed, spec.batch_size],
            self._arithmetic(options.objective),
            training_code(plugins_of(self._config.model) | plugins_of(options) | gating),
        ]

    def _arithmetic(self, objective: Objective) -> list[Any]:
        """Return how an expert's steps are computed, without what has no effect on this device or this objective."""
        engine, on_gpu = self._config.engine, self._config.training.device == "cuda"
        attacks = engine.precision == "float32" and bool(objective.trains_against)
        return [
            engine.eager,
            engine.precision,
            engine.attack_precision if attacks else None,
            on_gpu and engine.tf32,
            not engine.eager and (engine.compile if on_gpu else engine.compile is True),
        ]

    def _mixing_of(self, name: str, number: int, epoch: int) -> list[Any]:
        """Return how a share follows its trajectory in an epoch: the own one, or that of an alternative from 1 on."""
        spec = self._specs[name]
        schedule = spec.alternative_schedules[number - 1] if number else spec.mixing
        assert schedule is not None  # asked only where there is a share
        steps = slice(epoch * self._per_epoch + 1, (epoch + 1) * self._per_epoch + 1)
        return [schedule.weight[steps].tolist(), schedule.decay[steps].tolist()]

    def _group(self, group: Sequence[str], positions: CheckpointRefs, epoch: int, *, meeting: bool) -> Key:
        """Return what experts get from each other in an epoch: by reading each other, and by redistribution."""
        if not meeting:
            return digest(["peers", [[positions[name].trajectory, self._epoch(name, epoch)] for name in group]])
        mixing = self._config.mixing
        assert mixing is not None  # only mixed experts meet
        every = mixing.interval.steps if isinstance(mixing.interval, Steps) else 1
        how = [every, mixing.warm_up * self._per_epoch % every, mixing.redistribute, mixing.momentum]
        members = []
        for name in group:
            keys = [self._epoch(name, epoch), self._mixing(name, 0, epoch)]
            members.append([positions[name].trajectory, positions[name].share, *keys])
        last = self._specs[group[0]].total == (epoch + 1) * self._per_epoch
        return digest(["group", members, how, last])


def _first_share(born: Key, schedule: MixingSchedule) -> Key:
    return digest(["share", born, float(schedule.weight[0])])
