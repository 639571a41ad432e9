"""A whole search: workers, what is told of them, the finalists, the best."""

import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from optuna.trial import TrialState

from generalist import engine
from generalist.atomic_files import write_atomically
from generalist.config import Config, EvaluationOptions, to_yaml
from generalist.config.names import check_name
from generalist.data import Dataset
from generalist.records import Measured
from generalist.store import Store
from generalist.training import retry_lost_states
from pipelines import steps
from pipelines.error_reporting import telling
from pipelines.tracking import StudyTracker, open_study
from pipelines.trial_records import Finalist, StudyRecord, TrialRecord
from pipelines.tuning.storage import address_of, open_storage
from pipelines.tuning.study import ENDED, SEARCH, Search, best_config, create_search, record_of
from pipelines.tuning.summary import as_json, short
from pipelines.tuning.trial_training import SharingRunner, training_of_trial
from pipelines.tuning.worker_pool import LocalWorker, WorkerPool
from pipelines.workspace import Workspace

SECONDS, LEADING = "seconds", "leading"
"""Attributes of a study: how long its sittings were, and how long a processor led them."""
_GLANCE = 0.4  # seconds between two looks at the trials

Tell = Callable[[str], None]


class Files:
    """What a search puts down, in a folder of its own.

    Attributes:
        folder: that.
        page: for people.
        record: all trials.
        best: the best trial's configuration: a preset for every door.
        table, picture: of an ablation.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.page, self.record, self.best = folder / "tuning.html", folder / "tuning.json", folder / "best.yaml"
        self.table, self.picture = folder / "ablation.csv", folder / "ablation.png"


def files_of(workspace: Workspace, search: Search) -> Files:
    """Return where a search puts its files down."""
    return Files(workspace.tuning / search.name)


def run(
    workspace: Workspace,
    config: Config,
    *,
    name: str | None,
    address: str | None,
    workers: int | None,
    tell: Tell,
    shown: type[LocalWorker] = LocalWorker,
) -> tuple[Search, StudyRecord]:
    """Begin a search or go on with one, until all trials have ended; choose the best, and put everything down.

    Args:
        workspace: where.
        config: what is varied, and how; all of `tuning`.
        name: of the search; by default one that follows from the configuration.
        address: of the storage; by default the project's own journal.
        workers: how many work at once; by default as many as there are CPU cores.
        tell: is told, line by line, what happens.
        shown: what a worker is here: a process, and perhaps something by which people see it.

    Raises:
        BadInput: the name is none, the space is wrong, the storage or MLflow can't be used, another process leads
            this search already, or workers die again and again.
    """
    if name is not None:
        check_name(name, SEARCH)
    where = address_of(workspace, address)
    search = create_search(config, open_storage(where), workspace.locks, name=name)
    with workspace.lock(files_of(workspace, search).folder):
        search.fill(search.space.grid() if config.tuning.sampler == "grid" else [{}] * config.tuning.trials)
        waiting = len(search.trials(TrialState.WAITING, TrialState.RUNNING))
        workers = max(1, min(workers or os.cpu_count() or 1, waiting))  # without work they only start and end
        tell(f"search {search.name}: {len(search.trials())} trials, {waiting} of them to do, workers: {workers}")
        pool = WorkerPool(partial(shown, workspace, search.name, where), workers)
        return search, _run_search(workspace, search, pool, workers, tell)


def _run_search(workspace: Workspace, search: Search, pool: WorkerPool, workers: int, tell: Tell) -> StudyRecord:
    config, files = search.space.config, files_of(workspace, search)
    dataset, names = steps.dataset(config, workspace), search.objective.names
    tracker = open_study(workspace, search.name, config, objective=names, data_digest=dataset.digest)
    try:
        _supervise(search, tracker, pool, tell)
        record = _record(search, workers)
        last = _finalists(search, record, dataset, steps.open_store(workspace), workspace.here, tell)
        record = record.model_copy(update={"finalists": last, "best": _best(search, record, last)})
        write_files(files, search, record)
        tracker.finish(record, [path for path in (files.page, files.record, files.best) if path.exists()])
    except BaseException:
        tracker.stopped()
        raise
    return record


def write_files(files: Files, search: Search, record: StudyRecord) -> None:
    """Write what was found."""
    from pipelines.tuning.search_page import build

    files.folder.mkdir(parents=True, exist_ok=True)
    write_atomically(files.record, (json.dumps(as_json(record), indent=1) + "\n").encode())
    write_atomically(files.page, build(search.study, record).encode())
    if record.best is not None:
        best = best_config(search, record.trials[record.best])
        write_atomically(files.best, (f"# trial {record.best} of the search {search.name}\n" + to_yaml(best)).encode())


def _supervise(search: Search, tracker: StudyTracker, pool: WorkerPool, tell: Tell) -> None:
    before = {name: float(search.study.user_attrs.get(name, 0.0)) for name in (SECONDS, LEADING)}
    since, used = time.perf_counter(), time.process_time()
    reported = {trial.number for trial in search.trials(*ENDED)}
    try:
        while search.left():
            if pool.keep():
                tell("a worker died; another one goes on with its trial")
            for number in search.requeue_stale():
                tell(f"trial {number} waits for another worker")
            reported |= _report_ended(search, tracker, reported, tell)
            time.sleep(_GLANCE)
        pool.finish()
        _report_ended(search, tracker, reported, tell)
    finally:
        with telling():
            pool.end()
        with telling():
            search.study.set_user_attr(LEADING, before[LEADING] + time.process_time() - used)
            search.study.set_user_attr(SECONDS, before[SECONDS] + time.perf_counter() - since)


def _report_ended(search: Search, tracker: StudyTracker, reported: set[int], tell: Tell) -> set[int]:
    """Tell of trials that have ended since."""
    new = [record_of(trial) for trial in search.trials(*ENDED) if trial.number not in reported]
    for trial in new:
        tracker.tell(trial)
        tell(_line(search, trial))
    return {trial.number for trial in new}


def _line(search: Search, trial: TrialRecord) -> str:
    what = ", ".join(f"{short(path)} {value}" for path, value in trial.params.items())
    if trial.state == "complete":
        values = ", ".join(
            f"{name} {value:.4f}" for name, value in zip(search.objective.names, trial.values, strict=True)
        )
        return f"trial {trial.number}: {values} ({what}; {trial.epochs_trained} of {trial.epochs_asked} epochs trained)"
    return f"trial {trial.number} {trial.state}: {trial.reason} ({what})"


def _record(search: Search, workers: int) -> StudyRecord:
    return StudyRecord(
        name=search.name,
        objective=search.objective.names,
        dimensions=search.space.described(),
        trials=tuple(search.records()),
        workers=workers,
        seconds=float(search.study.user_attrs.get(SECONDS, 0.0)),
        leading=float(search.study.user_attrs.get(LEADING, 0.0)),
        endless=tuple(search.space.endless()),
    )


def _finalists(
    search: Search, record: StudyRecord, dataset: Dataset, store: Store, root: Path, tell: Tell
) -> tuple[Finalist, ...]:
    """Judge the best trials anew on the validation split, by the attack that judges models."""
    finalists = []
    different = {trial.overrides: trial for trial in reversed(ranked(search, record))}  # of equals, the first
    for trial in list(reversed(different.values()))[: search.space.config.tuning.finalists]:
        attack = search.space.config.evaluation
        tell(f"trial {trial.number} is judged anew by {attack.attack} on the validation split")
        training = training_of_trial(search.space, best_config(search, trial), dataset, store, root)
        with engine.threads(search.space.config.training.threads):
            measured = retry_lost_states(store, partial(_measure, training, attack))
        values = search.objective.values(measured)
        finalists.append(Finalist(number=trial.number, attack=attack.attack, validation=measured, values=values))
    return tuple(sorted(finalists, key=lambda finalist: -search.objective.value(finalist.validation)))


def _measure(training: SharingRunner, attack: EvaluationOptions) -> Measured:
    """Measure a trial's candidate, which is trained again where the store has lost it."""
    trainer = training.training
    return trainer.measured(trainer.choose([end.candidate for end in training.rounds()]), attack)


def ranked(search: Search, record: StudyRecord) -> list[TrialRecord]:
    """Return complete trials, the best first; of two objectives, by their harmonic mean."""
    complete = [trial for trial in record.trials if trial.state == "complete" and trial.validation is not None]
    return sorted(complete, key=lambda trial: -search.objective.value(trial.validation) if trial.validation else 0.0)


def _best(search: Search, record: StudyRecord, finalists: tuple[Finalist, ...]) -> int | None:
    if finalists:
        return finalists[0].number
    return next((trial.number for trial in ranked(search, record)), None)
