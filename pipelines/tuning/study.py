"""A search in its storage: its trials wait there from the start, so that workers can neither lose nor invent one."""

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from generalist.config import Config, canonical, check, digest, effective_params, leaves, params_digest, with_overrides
from generalist.errors import BadInput
from pipelines.locks import Alive, tried
from pipelines.trial_records import State, TrialRecord
from pipelines.tuning.objective import Objective
from pipelines.tuning.samplers import Keyed, Untried, pruner
from pipelines.tuning.space import Point, Space

CONFIG, ABOUT, RECORD, WORKER = "config", "about", "record", "worker"
"""Attributes: of a study, its configuration and what must stay the same; of a trial, what it tells, and whose it is."""

SEARCH = "the search's name"
"""What has the name, for the message about a wrong one."""

SILENT = 60.0
"""Seconds without a sign of life after which a worker on another machine counts as dead."""

ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
"""States that a trial does not leave."""

_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


@dataclass(frozen=True)
class Search:
    """An open search.

    Attributes:
        study: Optuna's.
        storage: where it lies.
        space: what may be searched, with the configuration that is varied.
        objective: what is looked for.
        locks: the folder of locks that go with this machine's workers.
    """

    study: optuna.Study
    storage: BaseStorage
    space: Space
    objective: Objective
    locks: Path

    @property
    def name(self) -> str:
        """The study's."""
        return str(self.study.study_name)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Return trials in some states, or all, in the order of their numbers."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def fill(self, points: Sequence[Point]) -> None:
        """Let so many trials wait for workers as there are points, those that are there counted from the front.

        An empty point leaves the choice to the sampler, when its turn comes.
        """
        for point in points[len(self.trials()) :]:
            self.study.enqueue_trial(point)

    def next(self, worker: "Worker") -> optuna.Trial | None:
        """Return a waiting trial with its point, which is the worker's from now on; None where none is waiting.

        Workers of this machine choose one after the other, so that no two choose the same point.
        """
        with FileLock(self.locks / "points.lock"):
            for waiting in self.trials(TrialState.WAITING):
                try:
                    mine = self.storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING)
                except optuna.exceptions.UpdateFinishedTrialError:
                    continue
                if mine:
                    self.storage.set_trial_user_attr(waiting._trial_id, WORKER, worker.heartbeat())
                    trial = optuna.Trial(self.study, waiting._trial_id)
                    self.space.suggest(trial)
                    return trial
        return None

    def left(self) -> bool:
        """Return whether a trial has not ended yet."""
        return bool(self.trials(TrialState.WAITING, TrialState.RUNNING))

    def requeue_stale(self) -> list[int]:
        """Let the trials of dead workers wait again, and give their numbers.

        A trial keeps its number, its point and what it reported; its training goes on from the store. Two that take
        the same one back do no harm, nor would two that then work at it: it has one place for its values.
        """
        numbers = []
        for trial in self.trials(TrialState.RUNNING):
            if self._is_stale(trial):
                try:
                    self.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
                except optuna.exceptions.UpdateFinishedTrialError:
                    continue
                numbers.append(trial.number)
        return numbers

    def records(self) -> list[TrialRecord]:
        """Return what all trials tell."""
        return [record_of(trial) for trial in self.trials()]

    def _is_stale(self, trial: FrozenTrial) -> bool:
        sign = trial.user_attrs.get(WORKER)
        if sign is None:  # its worker has just taken it, or died that very moment
            started = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
            return time.time() - started > SILENT
        if sign["host"] == socket.gethostname() and Path(sign["lock"]).parent == self.locks:
            if not (lock := Path(sign["lock"])).exists():
                return True
            with tried(lock) as free:
                return free
        return time.time() - float(sign["alive"]) > SILENT


class Worker(Alive):
    """A process that works on trials."""

    def __init__(self, search: Search) -> None:
        super().__init__(search.locks, "worker")

    def heartbeat(self) -> dict[str, str | float | int]:
        """Return a sign of life."""
        return {"host": socket.gethostname(), "process": os.getpid(), "lock": str(self.path), "alive": time.time()}


def create_search(config: Config, storage: BaseStorage, locks: Path, *, name: str | None = None) -> Search:
    """Return the search that a configuration means: a new one, or the one of that name which was begun before.

    Raises:
        BadInput: its space is wrong, or another search has that name.
    """
    space, objective = Space(config), Objective(config.tuning)
    about = _identity(config)
    name = name or default_name(config)
    study = optuna.create_study(
        study_name=name, storage=storage, directions=["maximize"] * len(objective.names), load_if_exists=True
    )
    known = study.user_attrs.get(ABOUT)
    if known is None:
        study.set_user_attr(CONFIG, config.model_dump(mode="json"))
        study.set_user_attr(ABOUT, about)
    elif known != about:
        changed = _differing_keys(study.user_attrs[CONFIG], config)
        raise BadInput(
            f"the search '{name}' was begun with another {changed}: set that back, or give this one a name of its own"
            " with --name"
        )
    return _make_search(study, storage, space, objective, locks, config)


def join_search(name: str, storage: BaseStorage, locks: Path) -> Search:
    """Return a search that was begun elsewhere, with the configuration that lies beside it.

    Raises:
        BadInput: there is none of that name.
    """
    try:
        study = optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        known = ", ".join(sorted(optuna.get_all_study_names(storage))) or "none yet"
        raise BadInput(f"there is no search '{name}' here; there are: {known}") from None
    if CONFIG not in study.user_attrs:
        raise BadInput(f"the search '{name}' is only just being made, or by other means: try again")
    config = check(study.user_attrs[CONFIG])
    return _make_search(study, storage, Space(config), Objective(config.tuning), locks, config)


def default_name(config: Config) -> str:
    """Return the name of a configuration's search that was given none."""
    return f"{config.data.name}-{_identity(config)[:8]}"


def record_of(trial: FrozenTrial) -> TrialRecord:
    """Return what a trial tells."""
    record = TrialRecord(number=trial.number, state=_STATES[trial.state], **trial.user_attrs.get(RECORD, {}))
    values = tuple(trial.values or ())
    if trial.state is TrialState.PRUNED and trial.intermediate_values:
        values = (trial.intermediate_values[max(trial.intermediate_values)],)
    return record.model_copy(update={"params": dict(trial.params), "values": values})


def _make_search(
    study: optuna.Study, storage: BaseStorage, space: Space, objective: Objective, locks: Path, config: Config
) -> Search:
    study.sampler = Keyed(config.tuning, Untried(space, partial(study.get_trials, deepcopy=False)))
    study.pruner = pruner(config.tuning, epochs=config.training.epochs)
    return Search(study, storage, space, objective, locks / f"tuning-{digest(study.study_name)[:12]}")


def _identity(config: Config) -> str:
    """Return what must stay the same in a search."""
    return digest([params_digest(config), _search_options(config)])


def _search_options(config: Config) -> dict[str, Any]:
    """Return how it is searched; how many trials and finalists there are may change."""
    options = canonical(config.tuning)
    return {key: value for key, value in options.items() if key not in ("trials", "finalists", "seeds")}


def _differing_keys(begun: Any, config: Config) -> str:
    """Return the keys in which a configuration differs from the one that a search was begun with."""
    try:
        before, now = (
            dict(leaves({**effective_params(search_config), "tuning": _search_options(search_config)}))
            for search_config in (check(begun), config)
        )
    except BadInput:
        return "version of generalist"
    keys = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    return ", ".join(keys) or "version of generalist"


def best_config(search: Search, record: TrialRecord) -> Config:
    """Return the configuration of a trial."""
    return with_overrides(search.space.config, record.overrides)
