"""One group's epochs of a round: taken from the store as far as it holds them, trained from there."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from generalist import engine
from generalist.config import Config, Rollback, canonical
from generalist.data import Dataset, Samples, images_on
from generalist.errors import BadInput
from generalist.expert_group import DivergedError, EpochResult, ExpertGroup, PartialEpochState
from generalist.expert_state import ExpertSpec
from generalist.records import EpochRecord
from generalist.training.checkpoints import Checkpoints, Histories, PartialSegment
from generalist.training.facts import Tell
from generalist.training.forecast import GroupForecast
from generalist.training.gating import pass_gates
from generalist.training.keys import CheckpointRef, CheckpointRefs
from generalist.training.memory import oom_to_batch_size_hint
from generalist.training.plan import Round
from generalist.training.speeds import Speeds
from generalist.training.validation import Validator


class Diverged(BadInput):
    """An expert's loss or gradient is no finite number any more, and nothing is left to be tried."""


@dataclass(frozen=True)
class TrainingContext:
    """What all segments of a training work with; `watched` says whether experts are measured at cuts."""

    config: Config
    dataset: Dataset
    specs: Mapping[str, ExpertSpec]
    states: Checkpoints
    measuring: Validator
    speeds: Speeds
    watched: bool = True


class Segment:
    """Experts that advance together through a round.

    Attributes:
        ahead: by expert and epoch, where it will stand.
        done: the epoch up to which the store holds all of them.
    """

    def __init__(
        self,
        means: TrainingContext,
        round_: Round,
        group: Sequence[str],
        start: CheckpointRefs,
        ahead: Mapping[str, Mapping[int, CheckpointRef]],
    ) -> None:
        self._context, self._round, self._group = means, round_, tuple(group)
        self._is_still = not round_.still.isdisjoint(group)
        self._unlabelled: Samples | None = None
        stored = (cut for cut in round_.cuts if all(ahead[name][cut] in means.states for name in group))
        self.done = max(stored, default=round_.start)
        positions = {name: start[name] if self.done == round_.start else ahead[name][self.done] for name in group}
        # Alternatives whose shares are not there can't be had any more without starting over.
        self._alternatives = {name: means.states.stored_alternatives(positions[name]) for name in group}
        self._positions = {name: self._with_stored_alternatives(name, positions[name]) for name in group}
        self.ahead = {
            name: {epoch: self._with_stored_alternatives(name, position) for epoch, position in ahead[name].items()}
            for name in group
        }

    @property
    def cuts(self) -> dict[str, tuple[CheckpointRef, ...]]:
        """Each expert's positions at the round's cuts."""
        return {name: tuple(self.ahead[name][cut] for cut in self._round.cuts) for name in self._group}

    def work(self) -> GroupForecast:
        """Return what there is to do; to stand still is nothing."""
        if self._is_still:
            return GroupForecast(self._round, self._group, self._round.stop, False, None)
        begun = self.done < self._round.stop and self._context.states.has_begun(self._end_positions)
        return GroupForecast(self._round, self._group, self.done, begun, self._context.speeds.of(self._speed_key))

    def recall(self, tell: Tell) -> None:
        """Tell the records of epochs that the store holds already; none where nobody watches."""
        if self.done == self._round.start or not self._context.watched:
            return
        for name in self._group:
            for record in self._context.states.load(self._positions[name])[1]:
                if record.epoch > self._round.start:
                    tell(self._with_validation(name, record))

    def train(self, tell: Tell) -> None:
        """Train what the store does not hold, storing states on the way.

        Raises:
            BadInput: an expert diverged.
        """
        if self.done == self._round.stop:
            return
        context, states = self._context, self._context.states
        begun = self._load_furthest()
        for name, history in zip(self._group, begun.histories, strict=True):
            for record in history:
                if record.epoch > self.done:
                    tell(self._with_validation(name, record))
        on, policy = engine.device(context.config.training.device), context.config.training.divergence
        alive = self._build_group(begun.moment, on)
        if self._is_still:
            self._stand_still(alive, begun.histories)
            return
        data = images_on(context.dataset.train, on, context.config.training.images)
        if any("unlabelled" in context.config.experts[name].objective.needs for name in self._group):
            assert context.dataset.unlabelled is not None  # the training is refused without them
            self._unlabelled = images_on(context.dataset.unlabelled, on, context.config.training.images)
        keeper = PeriodicCheckpointer(
            self, alive, begun.histories, minutes=float(context.config.training.checkpoint_minutes)
        )
        since, first = time.perf_counter(), begun.moment.states[0].epoch + 1
        for epoch in range(first, self._round.stop + 1):
            if isinstance(policy, Rollback):
                alive, results = self._run_epoch_with_rollback(alive, data, epoch, policy)
                keeper.alive = alive
            else:
                results = self._run_epoch(alive, data, epoch, between=keeper.keep_if_due)
            pass_gates(alive.experts, context.dataset, epoch)
            for name, result, history in zip(self._group, results, begun.histories, strict=True):
                history.append(_record(name, epoch, result))
            if epoch in self._round.cuts:
                for name, expert, history in zip(self._group, alive.experts, begun.histories, strict=True):
                    states.save(self.ahead[name][epoch], expert.state(), history)
                keeper.forget()
            else:
                keeper.keep_if_due()
            self._tell_last(begun.histories, tell, keeper)
        context.speeds.note(self._speed_key, (time.perf_counter() - since) / (self._round.stop + 1 - first))

    def _stand_still(self, alive: ExpertGroup, histories: Histories) -> None:
        for epoch in range(self.done + 1, self._round.stop + 1):
            alive.stand_still(len(self._context.dataset.train))
            if epoch in self._round.cuts:
                for name, expert, history in zip(self._group, alive.experts, histories, strict=True):
                    self._context.states.save(self.ahead[name][epoch], expert.state(), history)

    def _tell_last(self, histories: Histories, tell: Tell, keeper: "PeriodicCheckpointer") -> None:
        """Tell the records of an epoch that has just ended."""
        try:
            for name, history in zip(self._group, histories, strict=True):
                tell(self._with_validation(name, history[-1]))
        except BaseException:  # whoever listens wants no more of it now, and may go on later
            if histories[0][-1].epoch not in self._round.cuts:
                keeper.keep()
            raise

    def _build_group(self, moment: PartialEpochState, on: torch.device) -> ExpertGroup:
        context = self._context
        specs = [self._spec(name) for name in self._group]
        shape, coupled = context.dataset.shape, self._round.coupled
        stood = [self._positions[name].teacher for name in self._group]
        teachers = [None if position is None else context.states.learner(position) for position in stood]
        return ExpertGroup.from_states(
            context.config,
            specs,
            moment.states,
            shape,
            on=on,
            coupled=coupled,
            begun=moment,
            teachers=teachers,
        )

    def _spec(self, name: str) -> ExpertSpec:
        spec = self._context.specs[name]
        return replace(
            spec, alternative_schedules=tuple(spec.alternative_schedules[index] for index in self._alternatives[name])
        )

    def _with_stored_alternatives(self, name: str, position: CheckpointRef) -> CheckpointRef:
        """Return a position with those alternatives alone that go along."""
        return replace(
            position, alternative_shares=tuple(position.alternative_shares[index] for index in self._alternatives[name])
        )

    def _run_epoch(
        self, alive: ExpertGroup, data: Samples, epoch: int, *, between: Callable[[], None] | None = None
    ) -> list[EpochResult]:
        try:
            return self._epoch_with_memory_hint(alive, data, between)
        except DivergedError as error:
            raise Diverged(self._divergence_message(error, epoch)) from None

    def _epoch_with_memory_hint(
        self, alive: ExpertGroup, data: Samples, between: Callable[[], None] | None = None
    ) -> list[EpochResult]:
        with oom_to_batch_size_hint(alive.experts, self._context.dataset.shape, data.device):
            return alive.epoch(data, unlabelled=self._unlabelled, between=between)

    def _run_epoch_with_rollback(
        self, alive: ExpertGroup, data: Samples, epoch: int, policy: Rollback
    ) -> tuple[ExpertGroup, list[EpochResult]]:
        """Train an epoch, and begin it anew with a smaller learning rate where it diverges.

        Nothing is stored inside it: going on from there, its start would be lost.
        """
        for _ in range(policy.retries):
            start = alive.snapshot()
            try:
                return alive, self._epoch_with_memory_hint(alive, data)
            except DivergedError as error:
                logging.getLogger("generalist").warning("%s; going back", self._divergence_message(error, epoch))
                states = list(start.states)
                state = states[error.expert]
                states[error.expert] = replace(state, rate=state.rate * float(policy.factor))
                alive = self._build_group(ExpertGroup.at_epoch_start(states), data.device)
        return alive, self._run_epoch(alive, data, epoch)

    @property
    def _speed_key(self) -> list[object]:
        """What an epoch's duration depends on, besides what all groups of a training have in common."""
        parts = [canonical(self._context.config.experts[name]) for name in self._group]
        return [[part["objective"], part["augment"], part["averaging"] is not False] for part in parts]

    @property
    def _end_positions(self) -> list[CheckpointRef]:
        return [self.ahead[name][self._round.stop] for name in self._group]

    def _load_furthest(self) -> PartialSegment:
        """Return the furthest that the store holds: inside an epoch, or else where a cut was."""
        begun = self._context.states.load_begun(self._end_positions)
        if begun is not None and begun.moment.states[0].epoch >= self.done:
            return begun
        loaded = [self._context.states.load(self._positions[name]) for name in self._group]
        return PartialSegment(
            ExpertGroup.at_epoch_start([state for state, _ in loaded]), [history for _, history in loaded]
        )

    def _with_validation(self, name: str, record: EpochRecord) -> EpochRecord:
        """Return a record as this training tells it, with the expert measured where its state is stored."""
        named_record = record.model_copy(update={"expert": name})  # the state may be another training's
        position = self.ahead[name][record.epoch]
        if self._context.watched and record.epoch in self._round.cuts and position in self._context.states:
            return named_record.model_copy(update={"validation": self._context.measuring.expert(position, name)})
        return named_record

    def _divergence_message(self, error: DivergedError, epoch: int) -> str:
        name = self._group[error.expert]
        rate = self._context.config.experts[name].optimizer.lr
        good = max((cut for cut in self._round.cuts if cut < epoch), default=self._round.start)
        return (
            f"expert {name} diverged in epoch {epoch}, step {error.step} (loss {error.loss:g}, gradient norm"
            f" {error.gradient_norm:g}); its last good state is that after epoch {good}, in the store: lower"
            f" experts.{name}.optimizer.lr, which is {rate}"
        )

    def keep(self, alive: ExpertGroup, histories: Histories) -> None:
        """Store a group in the middle of the segment."""
        self._context.states.save_begun(
            self._end_positions, PartialSegment(alive.snapshot(), [list(history) for history in histories])
        )

    def forget(self) -> None:
        """Delete what `keep` stored; nothing needs it any more."""
        self._context.states.discard_begun(self._end_positions)


class PeriodicCheckpointer:
    """Stores a group whenever so many minutes have passed since anything of it was stored."""

    def __init__(self, segment: Segment, alive: ExpertGroup, histories: Histories, *, minutes: float) -> None:
        self._segment, self.alive, self._histories = segment, alive, histories
        self._interval, self._last_stored = 60 * minutes, time.monotonic()

    def keep_if_due(self) -> None:
        if time.monotonic() - self._last_stored >= self._interval:
            self.keep()

    def keep(self) -> None:
        self._segment.keep(self.alive, self._histories)
        self._last_stored = time.monotonic()

    def forget(self) -> None:
        self._segment.forget()
        self._last_stored = time.monotonic()


def _record(name: str, epoch: int, result: EpochResult) -> EpochRecord:
    return EpochRecord(
        expert=name,
        epoch=epoch,
        loss=result.loss,
        accuracy=result.accuracy,
        gradient_norm=result.gradient_norm,
        learning_rate=result.learning_rate,
        images=result.images,
        seconds=result.seconds,
        validation=None,
    )
