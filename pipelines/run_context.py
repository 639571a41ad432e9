"""One run of the pipeline: the plain values that its tasks are given, what they open by them, and who follows it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypedDict

from pydantic import TypeAdapter

from generalist.attacks import AttackProgress
from generalist.config import check
from generalist.records import EpochRecord, RoundRecord
from generalist.tensors import Weights
from generalist.training import (
    Ending,
    Fact,
    Facts,
    InProcessRunner,
    Tell,
    Trainer,
    catastrophic_overfitting_warning,
    learners,
)
from pipelines import steps
from pipelines.tracking import Tracker
from pipelines.workspace import Workspace

Plain = Any
"""Maps, lists and scalars, as in JSON; `pydantic_core.to_jsonable_python` makes them of all that travels."""


class RunSpec(TypedDict):
    """What a task is told of its run, in plain values alone, so that it can run in any process that sees the folders.

    Attributes:
        id: the flow run's.
        root, here: the workspace's.
        config: the configuration, whose device is settled.
        data: the folder of prepared data; empty before it is known.
        staged: the folder of results in the making.
    """

    id: str
    root: str
    here: str
    config: Plain
    data: str
    staged: str


def workspace_of(spec: RunSpec) -> Workspace:
    """Return the workspace of a run."""
    return Workspace(Path(spec["root"]), Path(spec["here"]))


def open_training(spec: RunSpec) -> Trainer:
    """Return the training of a run, whose data are there; it is opened once in each process.

    Raises:
        BadInput: the data changed after they were prepared, or the configured device is not there.
    """
    return _training(json.dumps(spec))


@lru_cache(maxsize=1)
def _training(key: str) -> Trainer:
    spec: RunSpec = json.loads(key)
    return steps.training(check(spec["config"]), workspace_of(spec), data=Path(spec["data"]))


def learners_of(spec: RunSpec, end: Plain) -> dict[str, Weights]:
    """Return the weights of all learners of a finished training; they are read once in each process.

    Args:
        spec: of the run.
        end: the `Ending`.

    Raises:
        StateLost: a state in the store is damaged.
    """
    return _learners(json.dumps(spec), json.dumps(end))


@lru_cache(maxsize=1)
def _learners(key: str, end: str) -> dict[str, Weights]:
    return learners(_training(key), ending_of(json.loads(end)))


def ending_of(end: Plain) -> Ending:
    """Return where a training ended, from plain values."""
    return TypeAdapter(Ending).validate_python(end)


class ProgressListener(Protocol):
    """What follows a run, such as a terminal."""

    def epoch(self, record: EpochRecord, total_epochs: int) -> None:
        """Take note that an expert finished an epoch."""

    def round(self, record: RoundRecord) -> None:
        """Take note that a mixing round ended."""

    def attack(self, learner: str, standing: AttackProgress) -> None:
        """Take note that an attack on a learner began, or went on."""

    def say(self, text: str) -> None:
        """Take note that a step began or ended."""


class RunContext:
    """A run in progress, in the process of its flow.

    Attributes:
        facts: what the training told so far; experts tell it from several threads.
        runner: carries out the steps of the training.
    """

    runner: InProcessRunner

    def __init__(self, training: Trainer, tracker: Tracker, watch: ProgressListener) -> None:
        self.config, self.training, self.tracker, self.watch = training.config, training, tracker, watch
        self.facts = Facts(self._pass_on)

    def _pass_on(self, fact: Fact) -> None:
        """Pass a fact on to MLflow and to the run's listener."""
        if isinstance(fact, EpochRecord):
            self.tracker.epoch(fact)
            self.watch.epoch(fact, self.config.training.epochs)
            self._raise_alarm(catastrophic_overfitting_warning(self.facts.all(), fact))
            return
        self.tracker.log(fact)
        if isinstance(fact, RoundRecord):
            self.watch.round(fact)

    def _raise_alarm(self, warning: str | None) -> None:
        """Tell of an alarm once for each expert and epoch, where people look."""
        if warning is not None:
            self.watch.say(f"ALARM: {warning}")
            self.tracker.tag({"alarm": warning})

    def attacked(self, learner: str, threat: str, standing: AttackProgress) -> None:
        """Pass on how far an attack on a learner is."""
        several = len(self.config.evaluation.threats) > 1
        self.watch.attack(f"{learner} ({threat})" if several else learner, standing)


_followed: dict[str, RunContext] = {}


@contextmanager
def followed(job: RunContext, spec: RunSpec) -> Iterator[None]:
    """Let the tasks of a run that run in this process find it, and tell what they do at once."""
    _followed[spec["id"]] = job
    try:
        yield
    finally:
        del _followed[spec["id"]]


def job_here(spec: RunSpec) -> RunContext | None:
    """Return the run if its flow is in this process; elsewhere a task's result tells what happened."""
    return _followed.get(spec["id"])


def runner_here(spec: RunSpec, tell: Tell) -> InProcessRunner:
    """Return what trains: the run's own runner where its flow is in this process, else one that tells `tell`."""
    job = job_here(spec)
    return InProcessRunner(open_training(spec), tell) if job is None else job.runner
