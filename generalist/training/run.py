"""The driver of a training: round after round, by any runner, to the outcome."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

from generalist.config import Config
from generalist.data import Dataset
from generalist.records import EpochRecord, GlobalRecord, History, RoundRecord
from generalist.store import StateLost, Store
from generalist.tensors import Weights
from generalist.training.facts import Fact, Facts, Tell, ignore
from generalist.training.keys import CheckpointRefs
from generalist.training.processes import ProcessRunner
from generalist.training.runners import InProcessRunner, Runner
from generalist.training.trainer import Candidate, RoundEnd, Trainer


@dataclass(frozen=True)
class Outcome:
    """A finished training.

    Attributes:
        history: what was recorded of it.
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
    last: CheckpointRefs


T = TypeVar("T")

MAX_RESTARTS = 3
"""How often a training starts over when a state turns out to be damaged; each time all of them are looked at."""


def run(config: Config, dataset: Dataset, store: Store, tell: Tell = ignore) -> Outcome:
    """Train in this process, or in those that the configuration asks for; records are told as they come.

    Raises:
        BadInput: an expert diverged, or the store can't be read or written.
    """
    training, facts = Trainer(config, dataset, store), Facts(tell)
    with make_runner(training, facts) as runner:
        return drive(training, runner, facts)


def make_runner(training: Trainer, tell: Tell) -> AbstractContextManager[InProcessRunner]:
    """Return the runner that the configuration asks for; its processes end with the block."""
    if training.config.training.processes == "experts":
        return ProcessRunner(training, tell)
    return nullcontext(InProcessRunner(training, tell))


def run_rounds(training: Trainer, runner: Runner) -> Iterator[RoundEnd]:
    """Carry out the plan, round by round; what the store holds is not computed again.

    Raises:
        BadInput: an expert diverged.
        StateLost: a state in the store is damaged; see `retry_lost_states`.
    """
    positions: CheckpointRefs = training.start()
    for round_ in training.rounds:
        end = runner.mix(round_, runner.advance(round_, positions))
        positions = end.onward
        yield end


def retry_lost_states(store: Store, work: Callable[[], T], *, tell: Callable[[str], None] = ignore) -> T:
    """Do work over again where a state turns out to be damaged: what is missing then is computed, the rest found.

    Raises:
        StateLost: the store loses states faster than they are made.
    """
    for _ in range(MAX_RESTARTS):
        try:
            return work()
        except StateLost as error:
            tell(str(error))
            store.verify_all()
    return work()


def drive(training: Trainer, runner: Runner, facts: Facts) -> Outcome:
    """Carry out the whole plan.

    Raises:
        BadInput: an expert diverged, or the store can't be read or written.
    """

    def once() -> Outcome:
        end = ending(training, runner)
        return Outcome(history(facts.all()), end.chosen.record, learners(training, end))

    return retry_lost_states(training.store, once)


def ending(training: Trainer, own: Runner) -> Ending:
    """Carry out the whole plan once, and return where it ended.

    Raises:
        BadInput: an expert diverged.
        StateLost: a state in the store is damaged; see `retry_lost_states`.
    """
    ends = list(run_rounds(training, own))
    return Ending(training.choose([end.candidate for end in ends]), ends[-1].last)


def learners(training: Trainer, end: Ending) -> dict[str, Weights]:
    """Return the weights of each expert (and their ensemble) at the end of a training, and of the deployed learner.

    Raises:
        StateLost: a state in the store is damaged.
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
