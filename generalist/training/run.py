"""Executing the plan in this process, with no orchestration."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from generalist.config import Config
from generalist.data import Dataset
from generalist.records import EpochRecord, GlobalRecord, History, RoundRecord
from generalist.store import Lost, Store
from generalist.tensors import Weights
from generalist.training.crew import Crew, crew
from generalist.training.facts import Fact, identity
from generalist.training.keys import Positions
from generalist.training.steps import Candidate, Training


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


T = TypeVar("T")

PATIENCE = 4
"""How often a training starts over when a state turns out to be damaged; each time all of them are looked at."""


def run(config: Config, dataset: Dataset, store: Store) -> Generator[Fact, None, Outcome]:
    """Execute the plan in this process, yielding records as they come; returns the outcome.

    Raises:
        BadInput: an expert diverged, or the store can't be read or written.
    """
    training = Training(config, dataset, store)
    told: dict[tuple[str, int, str], Fact] = {}
    with crew(training) as advancing:
        for _ in range(PATIENCE - 1):
            try:
                return (yield from _all(training, advancing, told))
            except Lost:  # what is missing now is computed again, all else is found
                store.mend()
        return (yield from _all(training, advancing, told))


def _all(training: Training, advancing: Crew, told: dict[tuple[str, int, str], Fact]) -> Generator[Fact, None, Outcome]:
    positions: Positions = training.start()
    candidates: list[Candidate] = []
    for round_ in training.rounds:
        cuts = yield from _news(advancing.all_units(round_, positions), told)
        course, candidate, positions = training.mix(round_, cuts)
        candidates.append(candidate)
        yield from _news(_each([*course, candidate.record]), told)
    return outcome(training, list(told.values()), candidates, {name: own[-1] for name, own in cuts.items()})


def outcome(training: Training, facts: Sequence[Fact], candidates: Sequence[Candidate], last: Positions) -> Outcome:
    """Gather a finished training: the history, the choice, the weights."""
    chosen = training.choose(candidates)
    name = training.config.deploy.removeprefix("expert:")
    learners = training.learners(last)
    return Outcome(history(facts), chosen.record, {**learners, name: training.weights(chosen)})


def history(facts: Sequence[Fact]) -> History:
    """Sort facts by kind, epoch and expert: the same history however the steps were interleaved."""
    epochs = [fact for fact in facts if isinstance(fact, EpochRecord)]
    return History(
        epochs=tuple(sorted(epochs, key=lambda record: (record.epoch, record.expert))),
        course=tuple(fact for fact in facts if isinstance(fact, GlobalRecord)),
        rounds=tuple(fact for fact in facts if isinstance(fact, RoundRecord)),
    )


def _each(facts: Sequence[Fact]) -> Generator[Fact, None, None]:
    yield from facts


def _news(steps: Generator[Fact, None, T], told: dict[tuple[str, int, str], Fact]) -> Generator[Fact, None, T]:
    """What was not told before; gives what the steps give."""
    while True:
        try:
            fact = next(steps)
        except StopIteration as stop:
            end: T = stop.value
            return end
        if told.setdefault(identity(fact), fact) is fact:
            yield fact
