"""Executing the plan in this process, with no orchestration."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from generalist.config import Config
from generalist.data import Dataset
from generalist.records import EpochRecord, GlobalRecord, History, RoundRecord
from generalist.store import Store
from generalist.tensors import Weights
from generalist.training.keys import Position, Positions
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


Fact = EpochRecord | GlobalRecord | RoundRecord


def run(config: Config, dataset: Dataset, store: Store) -> Generator[Fact, None, Outcome]:
    """Execute the plan in this process, yielding records as they come; returns the outcome."""
    training = Training(config, dataset, store)
    positions: Positions = training.start()
    facts: list[Fact] = []
    candidates: list[Candidate] = []
    for round_ in training.rounds:
        cuts: dict[str, tuple[Position, ...]] = {}
        for unit in round_.units:
            steps = training.advance(round_, unit, positions)
            cuts |= yield from _collected(steps, facts)
        course, candidate, positions = training.mix(round_, cuts)
        candidates.append(candidate)
        told: list[Fact] = [*course, candidate.record]
        facts += told
        yield from told
    return outcome(training, facts, candidates, {name: own[-1] for name, own in cuts.items()})


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


def _collected(
    steps: Generator[EpochRecord, None, dict[str, tuple[Position, ...]]], facts: list[Fact]
) -> Generator[EpochRecord, None, dict[str, tuple[Position, ...]]]:
    while True:
        try:
            record = next(steps)
        except StopIteration as stop:
            ends: dict[str, tuple[Position, ...]] = stop.value
            return ends
        facts.append(record)
        yield record
