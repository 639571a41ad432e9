"""A whole search: workers, what is told of them, the finalists, the best."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from generalist import engine
from generalist.config import EvaluationOptions, to_yaml
from generalist.data import Dataset
from generalist.records import Measured
from generalist.store import Store
from generalist.training import restarted
from generalist.writing import write_atomically
from pipelines import steps
from pipelines.telling import telling
from pipelines.tracking import StudyTracker, open_study
from pipelines.trials import Finalist, StudyRecord, TrialRecord
from pipelines.tuning.hands import Hands, Start
from pipelines.tuning.space import Point
from pipelines.tuning.study import ENDED, Search, best_config, record_of
from pipelines.tuning.summary import as_json, short
from pipelines.tuning.trial import Shared, shared
from pipelines.workspace import Workspace

SECONDS, LEADING = "seconds", "leading"
"""Attributes of a study: how long its sittings were, and how long a processor led them."""
_GLANCE = 0.4  # seconds between two looks at the trials

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Files:
    """What a search puts down, in a folder of its own."""

    folder: Path

    @property
    def page(self) -> Path:
        """For people."""
        return self.folder / "tuning.html"

    @property
    def record(self) -> Path:
        """All trials."""
        return self.folder / "tuning.json"

    @property
    def best(self) -> Path:
        """The best trial's configuration: a preset for every door."""
        return self.folder / "best.yaml"

    @property
    def table(self) -> Path:
        """Of an ablation, as CSV."""
        return self.folder / "ablation.csv"

    @property
    def picture(self) -> Path:
        """Of an ablation."""
        return self.folder / "ablation.png"


def files_of(workspace: Workspace, search: Search) -> Files:
    """Return where a search puts its files down."""
    return Files(workspace.tuning / search.name)


def fill(search: Search, points: Sequence[Point]) -> None:
    """Let so many trials be there as there are points; those that are there count from the front."""
    search.queue(points[len(search.trials()) :])


def searched(workspace: Workspace, search: Search, *, start: Start, workers: int, tell: Tell) -> StudyRecord:
    """Work through all trials that wait, choose the best and put everything down.

    Args:
        workspace: where.
        search: what.
        start: starts a worker.
        workers: how many.
        tell: is told, line by line, what happens.

    Raises:
        BadInput: workers die again and again, or MLflow can't be reached.
    """
    config = search.space.config
    dataset = steps.dataset(config, workspace)
    names = search.objective.names
    tracker = open_study(workspace, search.name, config, objective=names, data_digest=dataset.digest)
    try:
        _worked(search, tracker, start=start, workers=workers, tell=tell)
        record = _record(search, workers)
        last = _finalists(search, record, dataset, steps.opened_store(workspace), workspace.here, tell)
        record = record.model_copy(update={"finalists": last, "best": _best(search, record, last)})
        put_down(files_of(workspace, search), search, record)
        tracker.finish(record, [path for path in _all(files_of(workspace, search)) if path.exists()])
    except BaseException:
        tracker.stopped()
        raise
    return record


def put_down(files: Files, search: Search, record: StudyRecord) -> None:
    """Write what was found."""
    from pipelines.tuning.page import build

    files.folder.mkdir(parents=True, exist_ok=True)
    write_atomically(files.record, (json.dumps(as_json(record), indent=1) + "\n").encode())
    write_atomically(files.page, build(search.study, record).encode())
    if record.best is not None:
        best = best_config(search, record.trials[record.best])
        write_atomically(files.best, (f"# trial {record.best} of the search {search.name}\n" + to_yaml(best)).encode())


def _all(files: Files) -> tuple[Path, ...]:
    return files.page, files.record, files.best


def _worked(search: Search, tracker: StudyTracker, *, start: Start, workers: int, tell: Tell) -> None:
    before = {name: float(search.study.user_attrs.get(name, 0.0)) for name in (SECONDS, LEADING)}
    since, used = time.perf_counter(), time.process_time()
    told = {trial.number for trial in search.trials(*ENDED)}
    hands = Hands(start, workers)
    try:
        while search.left():
            if hands.keep():
                tell("a worker died; another one goes on with its trial")
            for number in search.take_back():
                tell(f"trial {number} waits for another worker")
            told |= _news(search, tracker, told, tell)
            time.sleep(_GLANCE)
        hands.finish()
        _news(search, tracker, told, tell)
    finally:
        with telling():
            hands.end()
        with telling():
            search.study.set_user_attr(LEADING, before[LEADING] + time.process_time() - used)
            search.study.set_user_attr(SECONDS, before[SECONDS] + time.perf_counter() - since)


def _news(search: Search, tracker: StudyTracker, told: set[int], tell: Tell) -> set[int]:
    """Tell of trials that have ended since."""
    new = [record_of(trial) for trial in search.trials(*ENDED) if trial.number not in told]
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
    found = []
    different = {trial.overrides: trial for trial in reversed(ranked(search, record))}  # of equals, the first
    for trial in list(reversed(different.values()))[: search.space.config.tuning.finalists]:
        attack = search.space.config.evaluation
        tell(f"trial {trial.number} is judged anew by {attack.attack} on the validation split")
        training = shared(search.space, best_config(search, trial), dataset, store, root)
        with engine.threads(search.space.config.training.threads):
            measured = restarted(store, partial(_measured, training, attack))
        values = search.objective.values(measured)
        found.append(Finalist(number=trial.number, attack=attack.attack, validation=measured, values=values))
    return tuple(sorted(found, key=lambda own: -search.objective.value(own.validation)))


def _measured(training: Shared, attack: EvaluationOptions) -> Measured:
    """Measure a trial's candidate, which is trained again where the store has lost it."""
    own = training.training
    return own.measured(own.choose([end.candidate for end in training.rounds()]), attack)


def ranked(search: Search, record: StudyRecord) -> list[TrialRecord]:
    """Return complete trials, the best first; of two objectives, by their harmonic mean."""
    complete = [trial for trial in record.trials if trial.state == "complete" and trial.validation is not None]
    return sorted(complete, key=lambda own: -search.objective.value(own.validation) if own.validation else 0.0)


def _best(search: Search, record: StudyRecord, finalists: tuple[Finalist, ...]) -> int | None:
    if finalists:
        return finalists[0].number
    return next((trial.number for trial in ranked(search, record)), None)
