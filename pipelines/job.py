"""One run of the pipeline: what its tasks share, and who is told what happens."""

from typing import Protocol

from generalist.attacks import Standing
from generalist.config import Config
from generalist.records import EpochRecord, RoundRecord
from generalist.training import Fact, Facts, InProcess, Training, alarm
from pipelines.results import Results
from pipelines.tracking import Tracker
from pipelines.workspace import Workspace


class Watch(Protocol):
    """Somebody who follows a run, such as a terminal."""

    def epoch(self, record: EpochRecord, total_epochs: int) -> None:
        """Take note that an expert finished an epoch."""

    def round(self, record: RoundRecord) -> None:
        """Take note that a mixing round ended."""

    def attack(self, learner: str, standing: Standing) -> None:
        """Take note that an attack on a learner began, or went on."""

    def say(self, text: str) -> None:
        """Take note that a step began or ended."""


class Job:
    """A run in progress.

    A plain class on purpose: Prefect looks for futures inside data classes, and there are arrays in here.

    Attributes:
        facts: what the training told so far; experts tell it from several threads.
        runner: carries out the steps of the training.
    """

    runner: InProcess

    def __init__(
        self,
        config: Config,
        workspace: Workspace,
        training: Training,
        staged: Results,
        tracker: Tracker,
        watch: Watch,
    ) -> None:
        self.config, self.workspace, self.training = config, workspace, training
        self.staged, self.tracker, self.watch = staged, tracker, watch
        self.facts = Facts(self._tell)

    def _tell(self, fact: Fact) -> None:
        """Pass a fact on to MLflow and to whoever watches."""
        if isinstance(fact, EpochRecord):
            self.tracker.epoch(fact)
            self.watch.epoch(fact, self.config.training.epochs)
            self._heed(alarm(self.facts.all(), fact))
            return
        self.tracker.log(fact)
        if isinstance(fact, RoundRecord):
            self.watch.round(fact)

    def _heed(self, warning: str | None) -> None:
        """Tell of an alarm once for each expert and epoch, where people look."""
        if warning is not None:
            self.watch.say(f"ALARM: {warning}")
            self.tracker.tag({"alarm": warning})

    def attacked(self, learner: str, threat: str, standing: Standing) -> None:
        """Pass on how far an attack on a learner is."""
        several = len(self.config.evaluation.threats) > 1
        self.watch.attack(f"{learner} ({threat})" if several else learner, standing)
