"""The training of one trial, beside others that share its store."""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from generalist.config import Config, Steps
from generalist.data import Dataset
from generalist.store import Store
from generalist.training import (
    CheckpointRefs,
    Cuts,
    InProcessRunner,
    Round,
    RoundEnd,
    Sharing,
    Trainer,
    ignore,
    run_rounds,
)
from pipelines.locks import tried
from pipelines.trial_records import Point
from pipelines.tuning.space import Space

_GLANCE = 0.05  # seconds between two looks at what another worker does


@dataclass
class TrialCost:
    """What a trial cost.

    Attributes:
        asked: epochs of all experts up to where it got.
        trained: those of them that were not in the store.
        busy: seconds in which it trained and measured.
        waited: seconds in which others trained what it needs.
    """

    asked: int = 0
    trained: int = 0
    busy: float = 0.0
    waited: float = 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count what is done inside as busy."""
        since = time.perf_counter()
        try:
            yield
        finally:
            self.busy += time.perf_counter() - since


class SharingRunner(InProcessRunner):
    """A training whose segments are computed once, however many trials need them.

    Attributes:
        training: its steps.
        work: what it cost so far.
    """

    def __init__(self, training: Trainer) -> None:
        super().__init__(training, ignore)
        self.work = TrialCost()

    def rounds(self) -> Iterator[RoundEnd]:
        """Carry out the plan, round by round; what the store holds is not computed again.

        Raises:
            BadInput: an expert diverged.
            StateLost: a state in the store is damaged.
        """
        self.work.asked = 0
        return run_rounds(self.training, self)

    def advance(self, round_: Round, positions: CheckpointRefs) -> Cuts:
        """Train all groups of a round, those first that no other worker is training now."""
        cuts: Cuts = {}
        pending = list(round_.groups)
        while pending:
            since = time.perf_counter()
            for group in pending:
                if not self.training.work(round_, group, positions).epochs:
                    cuts |= self.advance_group(round_, group, positions)
                    pending.remove(group)
                    break
                with self._claim(positions[group[0]].trajectory) as free:
                    if free:  # perhaps because another worker has just done it
                        self.work.trained += len(group) * self.training.work(round_, group, positions).epochs
                        cuts |= self.advance_group(round_, group, positions)
                        pending.remove(group)
                        break
            else:
                time.sleep(_GLANCE)
                self.work.waited += time.perf_counter() - since
        return cuts

    def advance_group(self, round_: Round, group: Sequence[str], positions: CheckpointRefs) -> Cuts:
        """Train one group to the end of a round."""
        with self.work.timed():
            return super().advance_group(round_, group, positions)

    def mix(self, round_: Round, cuts: Cuts) -> RoundEnd:
        """End a round."""
        self.work.asked += sum(len(group) for group in round_.groups) * (round_.stop - round_.start)
        with self.work.timed():
            return super().mix(round_, cuts)

    def _claim(self, start: str) -> AbstractContextManager[bool]:
        """Claim a state to train from, until the end of the block; give whether nothing else trains from it now.

        Claims share few files: two states may meet in one file, and then a worker waits needlessly, but not for long.
        """
        folder = self.training.store.folder / "claims"
        folder.mkdir(parents=True, exist_ok=True)
        return tried(folder / f"{start[:2]}.lock")


def points(end: RoundEnd) -> list[Point]:
    """Return what was measured in a round: the global learner, or the one expert where nothing is mixed."""
    record = end.candidate.record
    measured = [(one.epoch, one.validation) for one in end.global_records] or [(record.epoch, record.validation)]
    return [Point(epoch=epoch, validation=validation) for epoch, validation in measured]


def training_of_trial(space: Space, config: Config, dataset: Dataset, store: Store, root: Path) -> SharingRunner:
    """Return the training of a trial's configuration; its states are stored where others of the space may begin."""
    options = space.config.tuning
    rungs = frozenset(range(options.rung, config.training.epochs, options.rung))
    sharing = Sharing(cuts=_cuts(space, config), measured=rungs, alternatives=space.alternatives(config))
    return SharingRunner(Trainer(as_trained(config), dataset, store, root=root, sharing=sharing))


def as_trained(config: Config) -> Config:
    """Return the configuration for this process, storing states only where trials meet; no bits change."""
    alone = config.mixing is None or isinstance(config.mixing.interval, Steps)  # their rounds end at checkpoints
    every = config.training.checkpoint_epochs if alone else config.training.epochs
    training = config.training.model_copy(update={"processes": "one", "checkpoint_epochs": every})
    return config.model_copy(update={"training": training})


def _cuts(space: Space, config: Config) -> frozenset[int]:
    """Return epochs after which another trial of the space may redistribute where this one does not."""
    if config.mixing is None:
        return frozenset()
    warm_ups = space.values("mixing.warm_up") or []
    intervals = [
        interval for interval in space.values("mixing.interval") or [] if not isinstance(interval, dict | Steps)
    ]
    first = config.mixing.warm_up
    ends = {*map(int, warm_ups), *(first + int(interval) for interval in intervals)}
    return frozenset(ends | {end - 1 for end in ends if config.mixing.burst})
