"""The driver of a training: round after round, by any runner, to the outcome."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

from generalist.config import Config
from generalist.data import Dataset
from generalist.records import EpochRecord, GlobalRecord, History, RoundRecord
from generalist.store import Lost, Store
from generalist.tensors import Weights
from generalist.training.facts import Fact, Facts, Tell, unheard
from generalist.training.keys import Positions
from generalist.training.processes import Processes
from generalist.training.runners import InProcess, Runner
from generalist.training.steps import Candidate, RoundEnd, Training


@dataclass(frozen=True)
class Outcome:
    """A finished training.

    Attributes:
        history: its course.
        chosen: the deployed learner.
        learners: weights by name: each expert at the end of the training, and the deployed learner under its name.
    """

    history: History
    chosen: RoundRecord
    learners: dict[str, Weights]


@dataclass(frozen=True)
class Ending:
    """Where a training ended, by the keys of its states.

    Attributes:
        chosen: the deployed learner.
        last: where the experts stand.
    """

    chosen: Candidate
    last: Positions


T = TypeVar("T")

MAX_RESTARTS = 3
"""How often a training starts over when a state turns out to be damaged; each time all of them are looked at."""


def run(config: Config, dataset: Dataset, store: Store, tell: Tell = unheard) -> Outcome:
    """Train in this process, or in those that the configuration asks for; records are told as they come.

    Raises:
        BadInput: an expert diverged, or the store can't be read or written.
    """
    training, facts = Training(config, dataset, store), Facts(tell)
    with runner(training, facts) as own:
        return drive(training, own, facts)


def runner(training: Training, tell: Tell) -> AbstractContextManager[InProcess]:
    """Return the runner that the configuration asks for; its processes end with the block."""
    if training.config.training.processes == "experts":
        return Processes(training, tell)
    return nullcontext(InProcess(training, tell))


def rounds(training: Training, own: Runner) -> Iterator[RoundEnd]:
    """Carry out the plan, round by round; what the store holds is not computed again.

    Raises:
        BadInput: an expert diverged.
        Lost: a state in the store is damaged; see `restarted`.
    """
    positions: Positions = training.start()
    for round_ in training.rounds:
        end = own.mix(round_, own.advance(round_, positions))
        positions = end.onward
        yield end


def restarted(store: Store, work: Callable[[], T], *, tell: Callable[[str], None] = unheard) -> T:
    """Do work over again where a state turns out to be damaged: what is missing then is computed, the rest found.

    Raises:
        Lost: the store loses states faster than they are made.
    """
    for _ in range(MAX_RESTARTS):
        try:
            return work()
        except Lost as error:
            tell(str(error))
            store.mend()
    return work()


def drive(training: Training, own: Runner, facts: Facts, *, tell: Callable[[str], None] = unheard) -> Outcome:
    """Carry out the whole plan; `tell` hears of states that were lost.

    Raises:
        BadInput: an expert diverged, or the store can't be read or written.
    """

    def once() -> Outcome:
        end = ending(training, own)
        return Outcome(history(facts.all()), end.chosen.record, learners(training, end))

    return restarted(training.store, once, tell=tell)


def ending(training: Training, own: Runner) -> Ending:
    """Carry out the whole plan once, and return where it ended.

    Raises:
        BadInput: an expert diverged.
        Lost: a state in the store is damaged; see `restarted`.
    """
    ends = list(rounds(training, own))
    return Ending(training.choose([end.candidate for end in ends]), ends[-1].last)


def learners(training: Training, end: Ending) -> dict[str, Weights]:
    """Return the weights of each expert at the end of a training, and of the deployed learner under its name.

    Raises:
        Lost: a state in the store is damaged.
    """
    return {**training.learners(end.last), training.config.deployed: training.weights(end.chosen)}


def history(facts: Sequence[Fact]) -> History:
    """Sort facts by kind, epoch and expert: the same history however the steps were interleaved."""
    epochs = [fact for fact in facts if isinstance(fact, EpochRecord)]
    return History(
        epochs=tuple(sorted(epochs, key=lambda record: (record.epoch, record.expert))),
        course=tuple(fact for fact in facts if isinstance(fact, GlobalRecord)),
        rounds=tuple(fact for fact in facts if isinstance(fact, RoundRecord)),
    )
