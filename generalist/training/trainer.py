"""The steps of a training: advance a group of experts to the end of a round, then mix.

Between steps travel only positions, keys of states in the store; so a step can run in this process, in
another, or on another machine that sees the store, and a state that is already there is not computed again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from generalist import engine
from generalist.config import ENSEMBLE, AttackOptions, Config, EvaluationOptions, canonical, digest
from generalist.data import Dataset, steps_per_epoch
from generalist.ensemble import joined
from generalist.expert_state import ExpertSpec, initial_state, initial_tables, redistribute_to, started
from generalist.mixing import mixing_schedules
from generalist.platform_fingerprint import fingerprint
from generalist.records import GlobalRecord, Measured, RoundRecord
from generalist.store import Store, tensors_digest
from generalist.tensors import Weights
from generalist.training.checkpoints import Checkpoints
from generalist.training.config_checks import (
    check_conditions,
    check_single_images,
    check_tables,
    check_threats,
    check_unlabelled,
    check_widths,
)
from generalist.training.facts import Fact, Tell
from generalist.training.forecast import GroupForecast
from generalist.training.keys import CheckpointRef, CheckpointRefs, Cuts, Key, Keys
from generalist.training.plan import Round, plan
from generalist.training.segment import Segment, TrainingContext
from generalist.training.sharing import Sharing, alternative_averages
from generalist.training.speeds import Speeds
from generalist.training.validation import Validator
from generalist.training.warm_start import load_initial_weights
from generalist.training.weights_spec import WeightsSpec


@dataclass(frozen=True)
class Candidate:
    """A learner that may be deployed: what was measured, and the key of its weights."""

    record: RoundRecord
    key: Key


@dataclass(frozen=True)
class RoundEnd:
    """How a round ended.

    Attributes:
        round: the round.
        global_records: the global learner, measured at its cuts.
        candidate: what may be deployed.
        last: where the experts stood.
        onward: where they go on from: the same, or what was redistributed to them.
    """

    round: Round
    global_records: tuple[GlobalRecord, ...]
    candidate: Candidate
    last: CheckpointRefs
    onward: CheckpointRefs

    @property
    def facts(self) -> tuple[Fact, ...]:
        """What there is to tell of it."""
        return *self.global_records, self.candidate.record


class Trainer:
    """The steps of one training over a data set and a store."""

    def __init__(
        self, config: Config, dataset: Dataset, store: Store, *, root: Path = Path(), sharing: Sharing | None = None
    ) -> None:
        """Take relative paths in the configuration as below `root`; give `sharing` where others train beside it.

        Raises:
            BadInput: `training.initial_weights` names no weights of this network, `engine.compile` needs a compiler, or
                a threat allows every image of this size.
        """
        config = engine.with_device(config)
        engine.check_compiler(config.engine, config.training.device)
        check_threats(config, dataset.shape)
        check_conditions(config)
        check_widths(config, dataset)
        check_single_images(config, dataset)
        check_unlabelled(config, dataset)
        self.config, self.dataset, self.store, self.root = config, dataset, store, root
        self._initial_weights = load_initial_weights(config, dataset.shape, root)
        self._sharing = sharing
        self.rounds = plan(config, sharing.cuts | sharing.measured if sharing else ())
        training = config.training
        numerics = fingerprint(training.device, training.threads)
        self._per_epoch = steps_per_epoch(len(dataset.train), training.batch_size)
        total = self._per_epoch * training.epochs
        schedules = mixing_schedules(config, total)
        alternatives = sharing.alternatives if sharing else ()
        parted = (
            round_.start if round_.coupled else round_.stop
            for round_ in self.rounds
            if round_.redistribute or round_.coupled
        )
        common = next(parted, training.epochs) * self._per_epoch
        beside = alternative_averages(schedules, alternatives, total=total, common=common)
        common_options = (config.seed, training.batch_size, total, config.engine)
        self._specs = {
            name: ExpertSpec(
                options,
                schedules.get(name),
                *common_options,
                beside.get(name, ()),
                config.active(name).start * self._per_epoch,
                config.active(name).stop * self._per_epoch,
            )
            for name, options in config.experts.items()
        }
        self._tables = {
            name: initial_tables(options, config.model, dataset.shape, images=len(dataset.train), seed=config.seed)
            for name, options in config.experts.items()
        }
        check_tables(self._tables)
        self._keys = Keys(
            config,
            self._specs,
            data=dataset.digest,
            shape=repr(dataset.shape),
            numerics=numerics,
            per_epoch=self._per_epoch,
            tables={name: tensors_digest(table) if table else None for name, table in self._tables.items()},
            initial=None if self._initial_weights is None else tensors_digest(self._initial_weights),
        )
        self.states = Checkpoints(store, WeightsSpec.of(config.model, dataset.shape))
        self._validator = Validator(config, dataset, store, self.states)
        alike = [canonical(config.model), canonical(config.engine), repr(dataset.shape), training.batch_size]
        speeds = Speeds(store, [*alike, len(dataset.train), numerics["device"], numerics["threads"]])
        means = (config, dataset, self._specs, self.states, self._validator, speeds)
        self._context = TrainingContext(*means, watched=sharing is None)

    def start(self) -> dict[str, CheckpointRef]:
        """Make the initial states, store each expert's, and say where they stand."""
        positions = {name: self._keys.start(name) for name in self._specs}
        missing = [name for name, position in positions.items() if not self.states.complete(position)]
        for name in missing:
            state = initial_state(self._first_weights(name), self._specs[name], self._tables[name])
            self.states.save(positions[name], state, [])
        return positions

    def _first_weights(self, name: str) -> Weights:
        """Return an expert's initial weights: those of all, or its own."""
        if self._initial_weights is not None:
            return self._initial_weights
        number = list(self._specs).index(name) if self.config.training.own_initial_weights else 0
        return engine.initial_weights(self.config.model, self.dataset.shape, self.config.seed, number)

    def forecast(self) -> list[GroupForecast]:
        """Return what `advance` would have to train, group by group; nothing is written, trained or measured."""
        return [self.work(round_, group, start) for round_, start, _ in self._walk() for group in round_.groups]

    def ends(self) -> dict[int, CheckpointRefs]:
        """Return where all experts stand at the end of each round, by the epochs done there; nothing is read."""
        return {round_.stop: last for round_, _, last in self._walk()}

    def _walk(self) -> Iterator[tuple[Round, CheckpointRefs, CheckpointRefs]]:
        """Yield each round of the plan with where all experts stand at its start and at its end."""
        positions: CheckpointRefs = {name: self._keys.start(name) for name in self._specs}
        for round_ in self.rounds:
            ahead: dict[str, dict[int, CheckpointRef]] = {}
            for group in round_.groups:
                ahead |= self._keys.ahead(round_, group, positions)
            last = {name: ahead[name][round_.stop] for name in self._specs}
            yield round_, positions, last
            positions = self._next_positions(round_, last)

    def work(self, round_: Round, group: Sequence[str], positions: CheckpointRefs) -> GroupForecast:
        """Return what `advance` would have to train of a group."""
        return self._segment(round_, group, positions).work()

    def advance(self, round_: Round, group: Sequence[str], positions: CheckpointRefs, tell: Tell) -> Cuts:
        """Train a group to the end of a round, or take from the store what was trained before.

        Args:
            round_: of the plan.
            group: names of experts, as the round has them.
            positions: where they start.
            tell: hears a record for each epoch and expert; what it raises ends the training, which can be gone on with.

        Raises:
            BadInput: an expert diverged.
            StateLost: a state in the store is damaged; it was set aside, and starting over computes it again.
        """
        training, plain = self.config.training, self.config.engine.eager
        with engine.threads(training.threads), engine.lane(torch.device(training.device), eager=plain):
            segment = self._segment(round_, group, positions)
            segment.recall(tell)
            segment.train(tell)
        return segment.cuts

    def mix(self, round_: Round, cuts: Cuts) -> RoundEnd:
        """End a round: measure the global learner at each cut, and redistribute it where the plan says so."""
        ordered = {name: cuts[name] for name in self._specs}  # sums are taken in the configuration's order
        last = {name: positions[-1] for name, positions in ordered.items()}
        with engine.threads(self.config.training.threads):
            records = [] if self.config.mixing is None else self._global_records(round_, ordered)
            candidate = self._candidate(round_, last)
            onward = self._next_positions(round_, last)
            self._save_next_states(round_, last, onward)
        return RoundEnd(round_, tuple(records), candidate, last, onward)

    def choose(self, candidates: Sequence[Candidate]) -> Candidate:
        """Return the best candidate by `registry.criterion` on the validation split; of equals, the latest."""
        criterion = self.config.registry.criterion
        return max(candidates, key=lambda c: (c.record.validation.by(criterion), c.record.round))

    def weights(self, candidate: Candidate) -> Weights:
        """Return a candidate's weights."""
        return self.states.weights(candidate.key)

    def measured(self, candidate: Candidate, attack: AttackOptions | EvaluationOptions) -> Measured:
        """Measure a candidate on the validation split by an attack or an evaluation's cascade; the store keeps it."""
        return self._validator.any_learner(self.weights(candidate), attack)

    def learners(self, positions: CheckpointRefs) -> dict[str, Weights]:
        """Return each expert's own learner where it stands, in the configuration's order, whichever was done first.

        Their ensemble, where there is one, is the last.
        """
        own = {name: self.states.learner(positions[name]) for name in self._specs}
        return own | ({ENSEMBLE: self._ensemble(positions)} if self.config.ensemble else {})

    def _segment(self, round_: Round, group: Sequence[str], positions: CheckpointRefs) -> Segment:
        return Segment(self._context, round_, group, positions, self._keys.ahead(round_, group, positions))

    def _global_records(self, round_: Round, cuts: Cuts) -> list[GlobalRecord]:
        """Measure the global learner at each cut of a round where every expert's state is stored."""
        records = []
        for index, epoch in enumerate(round_.cuts):
            positions = {name: cut_positions[index] for name, cut_positions in cuts.items()}
            if self._sharing and epoch not in self._sharing.measured and epoch < round_.stop:
                continue
            if all(position in self.states for position in positions.values()):
                records.append(GlobalRecord(epoch=epoch, validation=self._validator.global_learner(positions)))
        return records

    def _candidate(self, round_: Round, last: CheckpointRefs) -> Candidate:
        key, weights, validation = self._deployable(last)
        if key not in self.store:
            self.store.save(key, "learner", weights(), {})
        record = RoundRecord(
            round=round_.index,
            epoch=round_.stop,
            weights=self._mixing_weights(round_.stop),
            handed_back=round_.redistribute or (round_.coupled and round_.stop < self.config.training.epochs),
            validation=validation(),
            digest=tensors_digest(self.states.weights(key)),
        )
        return Candidate(record, key)

    def _deployable(self, last: CheckpointRefs) -> tuple[Key, Callable[[], Weights], Callable[[], Measured]]:
        """Return the key of what is deployed where all experts stand, its weights, and how it is measured."""
        name, states, validator = self.config.deployed, self.states, self._validator
        if name == "global":
            key = digest(["candidate", [position.share for position in last.values()]])
            return key, partial(states.global_learner, last), partial(validator.global_learner, last)
        if name == ENSEMBLE:
            key = digest(["candidate", ENSEMBLE, [last[member].trajectory for member in self.config.ensemble]])
            return key, partial(self._ensemble, last), lambda: validator.any_learner(self._ensemble(last))
        key = digest(["candidate", last[name].trajectory])
        return key, partial(states.learner, last[name]), partial(validator.expert, last[name], name)

    def _ensemble(self, positions: CheckpointRefs) -> Weights:
        return joined([self.states.learner(positions[name]) for name in self.config.ensemble])

    def _save_next_states(self, round_: Round, last: CheckpointRefs, onward: CheckpointRefs) -> None:
        """Store the states that experts go on from, where they are not those that they came to."""
        mixing, given = self.config.mixing, None
        for name, position in onward.items():
            if position in self.states:
                continue
            state, history = self.states.load(last[name])
            if name in round_.beginning:
                other = self.config.experts[name].start_from
                assert other is not None  # without, it goes on from the state that it has
                onward_state = started(state, self.states.learner(last[other]))
            else:
                assert mixing is not None  # the plan redistributes only where there is mixing
                if given is None and mixing.redistribute == "average":
                    given = self.states.global_learner(last)
                elif given is None:
                    given = self.states.mixture(last, self._factors(last))
                onward_state = redistribute_to(state, given, reset_momentum=mixing.momentum == "reset")
            self.states.save(position, onward_state, history)

    def _next_positions(self, round_: Round, last: CheckpointRefs) -> dict[str, CheckpointRef]:
        """Return where the experts go on from: those that train are redistributed to, others begin."""
        onward = dict(last)
        for name in last:
            if round_.redistribute and round_.stop in self.config.active(name):
                onward[name] = self._keys.handed_back(name, last, self._factors(last))
            if name in round_.beginning:
                onward[name] = self._keys.begun(name, last)
        return onward

    def _factors(self, last: CheckpointRefs) -> list[float]:
        return list(self._mixing_weights(next(iter(last.values())).epoch).values())

    def _mixing_weights(self, epoch: int) -> dict[str, float]:
        """Return each expert's weight in the mixture after an epoch's last step; empty where nothing is mixed."""
        step = epoch * self._per_epoch
        return {name: float(spec.mixing.weight[step]) for name, spec in self._specs.items() if spec.mixing is not None}
