"""The steps of a training: advance a unit of experts to the end of a round, then mix.

Between steps travel only positions, keys of states in the store; so a step can run in this process, in
another, or on another machine that sees the store, and a state that is already there is not computed again.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass

from generalist import engine
from generalist.config import Config, digest
from generalist.data import Dataset, Resident, steps_per_epoch
from generalist.experts import Recipe, handed_back, initial_state
from generalist.mixing import courses
from generalist.numerics import fingerprint
from generalist.records import EpochRecord, GlobalRecord, RoundRecord
from generalist.store import Store, tensors_digest
from generalist.tensors import Weights
from generalist.training.keys import Key, Keys, Position, Positions
from generalist.training.measuring import Measuring
from generalist.training.plan import Round, plan
from generalist.training.states import States
from generalist.units import EpochResult, Unit

Cuts = Mapping[str, Sequence[Position]]
"""Each expert's positions at the cuts of a round."""


@dataclass(frozen=True)
class Candidate:
    """A learner that may be deployed: what was measured, and the key of its weights."""

    record: RoundRecord
    key: Key


class Training:
    """The steps of one training over a data set and a store."""

    def __init__(self, config: Config, dataset: Dataset, store: Store) -> None:
        self.config, self.dataset, self.store = config, dataset, store
        self.rounds = plan(config)
        training = config.training
        self._per_epoch = steps_per_epoch(len(dataset.train), training.batch_size)
        total = self._per_epoch * training.epochs
        by_expert = courses(config, total)
        self._recipes = {
            name: Recipe(options, by_expert.get(name), config.seed, training.batch_size, total, config.engine)
            for name, options in config.experts.items()
        }
        self._keys = Keys(
            config,
            self._recipes,
            data=dataset.digest,
            shape=repr(dataset.shape),
            numerics=fingerprint(training.device, training.threads),
            per_epoch=self._per_epoch,
        )
        self._states = States(store)
        self._measuring = Measuring(config, dataset, store)

    def start(self) -> dict[str, Position]:
        """Make the common initial state, store each expert's, and say where they stand."""
        positions = {name: self._keys.start(name) for name in self._recipes}
        missing = [name for name, position in positions.items() if position not in self._states]
        if missing:
            weights = engine.initial_weights(self.config.model, self.dataset.shape, self.config.seed)
            for name in missing:
                self._states.save(positions[name], initial_state(weights, self._recipes[name]), [])
        return positions

    def advance(
        self, round_: Round, unit: Sequence[str], positions: Positions
    ) -> Generator[EpochRecord, None, dict[str, tuple[Position, ...]]]:
        """Train a unit to the end of a round, or take from the store what was trained before.

        Yields a record for each epoch and expert, and returns each expert's positions at the round's cuts.
        """
        with engine.threads(self.config.training.threads):
            ahead = self._keys.ahead(round_, unit, positions)
            done = self._done(round_, unit, ahead)
            here = {name: positions[name] if done == round_.start else ahead[name][done] for name in unit}
            yield from self._recorded(round_, unit, ahead, here)
            if done < round_.stop:
                yield from self._trained(round_, unit, ahead, here)
        return {name: tuple(ahead[name][cut] for cut in round_.cuts) for name in unit}

    def stored_up_to(self, round_: Round, unit: Sequence[str], positions: Positions) -> int:
        """The epoch from which `advance` would have to train: what the store holds is not computed again."""
        return self._done(round_, unit, self._keys.ahead(round_, unit, positions))

    def mix(self, round_: Round, cuts: Cuts) -> tuple[list[GlobalRecord], Candidate, dict[str, Position]]:
        """End a round: measure the global learner at each cut, and hand it back where the plan says so.

        Returns the measurements, the round's candidate for deployment, and where the experts go on from.
        """
        ordered = {name: cuts[name] for name in self._recipes}  # sums are taken in the configuration's order
        last = {name: positions[-1] for name, positions in ordered.items()}
        with engine.threads(self.config.training.threads):
            course = [] if self.config.mixing is None else self._course(round_, ordered)
            candidate = self._candidate(round_, last)
            onward = self._hand_back(last) if round_.hand_back else last
        return course, candidate, onward

    def choose(self, candidates: Sequence[Candidate]) -> Candidate:
        """The best candidate by `registry.criterion` on the validation split; of equals, the latest."""
        criterion = self.config.registry.criterion
        return max(candidates, key=lambda c: (c.record.validation.by(criterion), c.record.round))

    def weights(self, candidate: Candidate) -> Weights:
        """A candidate's weights."""
        return self.store.load(candidate.key).tensors

    def learners(self, positions: Positions) -> dict[str, Weights]:
        """Each expert's own learner where it stands."""
        return {name: self._states.learner(position) for name, position in positions.items()}

    def _done(self, round_: Round, unit: Sequence[str], ahead: Mapping[str, Mapping[int, Position]]) -> int:
        stored = (cut for cut in round_.cuts if all(ahead[name][cut] in self._states for name in unit))
        return max(stored, default=round_.start)

    def _trained(
        self, round_: Round, unit: Sequence[str], ahead: Mapping[str, Mapping[int, Position]], here: Positions
    ) -> Iterator[EpochRecord]:
        loaded = [self._states.load(here[name]) for name in unit]
        histories = [history for _, history in loaded]
        on = engine.device(self.config.training.device)
        recipes = [self._recipes[name] for name in unit]
        alive = Unit.revive(
            self.config, recipes, [state for state, _ in loaded], self.dataset.shape, on=on, coupled=round_.coupled
        )
        data = Resident.of(self.dataset.train, device=on)
        for epoch in range(here[unit[0]].epoch + 1, round_.stop + 1):
            results = alive.epoch(data)
            for name, result, expert, history in zip(unit, results, alive.experts, histories, strict=True):
                record = _record(name, epoch, result)
                history.append(record)
                if epoch in round_.cuts:
                    self._states.save(ahead[name][epoch], expert.state(), history)
                    record = self._with_validation(record, ahead[name][epoch])
                yield record

    def _recorded(
        self, round_: Round, unit: Sequence[str], ahead: Mapping[str, Mapping[int, Position]], here: Positions
    ) -> Iterator[EpochRecord]:
        """The records of epochs that the store holds already."""
        for name in unit:
            if here[name].epoch == round_.start:
                continue
            for record in self._states.load(here[name])[1]:
                if record.epoch <= round_.start:
                    continue
                own = record.model_copy(update={"expert": name})  # the state may be another training's
                position = ahead[name][record.epoch]
                measurable = record.epoch in round_.cuts and position in self._states
                yield self._with_validation(own, position) if measurable else own

    def _with_validation(self, record: EpochRecord, position: Position) -> EpochRecord:
        return record.model_copy(update={"validation": self._measuring.expert(position)})

    def _course(self, round_: Round, cuts: Cuts) -> list[GlobalRecord]:
        """The global learner at each cut of a round where every expert's state is stored."""
        records = []
        for index, epoch in enumerate(round_.cuts):
            positions = {name: own[index] for name, own in cuts.items()}
            if all(position in self._states for position in positions.values()):
                records.append(GlobalRecord(epoch=epoch, validation=self._measuring.global_learner(positions)))
        return records

    def _candidate(self, round_: Round, last: Positions) -> Candidate:
        is_global = self.config.deploy == "global"
        own = last.get(self.config.deploy.removeprefix("expert:"), next(iter(last.values())))
        key = digest(["candidate", [position.share for position in last.values()] if is_global else own.trajectory])
        if key not in self.store:
            self.store.save(key, self._states.global_learner(last) if is_global else self._states.learner(own), {})
        record = RoundRecord(
            round=round_.index,
            epoch=round_.stop,
            weights=self._mixing_weights(round_.stop),
            handed_back=round_.hand_back or (round_.coupled and round_.stop < self.config.training.epochs),
            validation=self._measuring.global_learner(last) if is_global else self._measuring.expert(own),
            digest=tensors_digest(self.store.load(key).tensors),
        )
        return Candidate(record, key)

    def _hand_back(self, last: Positions) -> dict[str, Position]:
        mixing = self.config.mixing
        assert mixing is not None  # the plan hands back only where there is mixing
        factors = list(self._mixing_weights(next(iter(last.values())).epoch).values())
        onward = {name: self._keys.handed_back(name, last, factors) for name in last}
        missing = [name for name, position in onward.items() if position not in self._states]
        if missing:
            if mixing.hand_back == "average":
                weights = self._states.global_learner(last)
            else:
                weights = self._states.mixture(last, factors)
            for name in missing:
                state, history = self._states.load(last[name])
                back = handed_back(state, weights, reset_momentum=mixing.momentum == "reset")
                self._states.save(onward[name], back, history)
        return onward

    def _mixing_weights(self, epoch: int) -> dict[str, float]:
        """Each expert's weight in the mixture after an epoch's last step; empty where nothing is mixed."""
        step = epoch * self._per_epoch
        return {
            name: float(recipe.course.weight[step])
            for name, recipe in self._recipes.items()
            if recipe.course is not None
        }


def _record(name: str, epoch: int, result: EpochResult) -> EpochRecord:
    return EpochRecord(
        expert=name,
        epoch=epoch,
        loss=result.loss,
        accuracy=result.accuracy,
        learning_rate=result.learning_rate,
        images=result.images,
        seconds=result.seconds,
        validation=None,
    )
