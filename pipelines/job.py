"""One run of the pipeline: what its tasks share, and who is told what happens."""

import threading
from collections.abc import Generator
from typing import Protocol

from generalist.attacks import Standing
from generalist.config import Config
from generalist.records import EpochRecord, RoundRecord
from generalist.training import Crew, Fact, Position, Training, alarm, identity
from pipelines.results import Results
from pipelines.tracking import Tracker
from pipelines.workspace import Workspace


class Watch(Protocol):
    """Somebody who follows a run, such as a terminal."""

    def epoch(self, record: EpochRecord, total_epochs: int) -> None:
        """An expert finished an epoch."""

    def round(self, record: RoundRecord) -> None:
        """A mixing round ended."""

    def attack(self, learner: str, standing: Standing) -> None:
        """An attack on a learner began, or went on."""

    def say(self, text: str) -> None:
        """A step began or ended."""


class Job:
    """A run in progress; experts report to it from several threads.

    A plain class on purpose: Prefect looks for futures inside data classes, and there are arrays in here.
    """

    def __init__(
        self,
        config: Config,
        workspace: Workspace,
        training: Training,
        crew: Crew,
        staged: Results,
        tracker: Tracker,
        watch: Watch,
    ) -> None:
        self.config, self.workspace, self.training, self.crew = config, workspace, training, crew
        self.staged, self.tracker, self.watch = staged, tracker, watch
        self._facts: dict[tuple[str, int, str], Fact] = {}
        self._lock = threading.Lock()

    @property
    def facts(self) -> list[Fact]:
        """All facts so far."""
        with self._lock:
            return list(self._facts.values())

    def tell(self, fact: Fact) -> None:
        """Keep a fact and pass it on; what a retried step tells again is known already."""
        with self._lock:
            if identity(fact) in self._facts:
                return
            self._facts[identity(fact)] = fact
            if isinstance(fact, EpochRecord):
                self.tracker.epoch(fact)
                self.watch.epoch(fact, self.config.training.epochs)
                self._heed(alarm(self._facts.values(), fact))
            elif isinstance(fact, RoundRecord):
                self.tracker.round(fact)
                self.watch.round(fact)
            else:
                self.tracker.course(fact)

    def _heed(self, warning: str | None) -> None:
        """Tell of an alarm once for each expert and epoch, where people look."""
        if warning is not None:
            self.watch.say(f"ALARM: {warning}")
            self.tracker.tag({"alarm": warning})

    def attacked(self, learner: str, threat: str, standing: Standing) -> None:
        """Pass on how far an attack on a learner is."""
        several = len(self.config.evaluation.threats) > 1
        self.watch.attack(f"{learner} ({threat})" if several else learner, standing)

    def follow(
        self, steps: Generator[EpochRecord, None, dict[str, tuple[Position, ...]]]
    ) -> dict[str, tuple[Position, ...]]:
        """Run a step to its end, passing its records on."""
        while True:
            try:
                self.tell(next(steps))
            except StopIteration as stop:
                ends: dict[str, tuple[Position, ...]] = stop.value
                return ends
