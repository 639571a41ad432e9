"""One MLflow run for one search, and below it one for each trial, however often the search is taken up again."""

import threading
import time
from collections.abc import Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Run

from generalist.config import Config
from generalist.errors import BadInput
from pipelines.error_reporting import telling
from pipelines.locks import Alive
from pipelines.tracking import run_metadata, trial_metadata
from pipelines.tracking.mlflow_database import connect, experiment_id
from pipelines.tracking.runs import ALIVE, end_killed, log, tag
from pipelines.trial_records import StudyRecord, TrialRecord
from pipelines.workspace import Workspace, code_version

STUDY, PARENT = "generalist.study", "mlflow.parentRunId"
_TRIAL = "generalist.trial"
_A_PAGE = 1000


class StudyTracker:
    """The open run of a search. Threads may share it.

    Attributes:
        run_id: MLflow's, of the parent.
    """

    def __init__(self, client: MlflowClient, parent: Run, *, objective: Sequence[str], alive: Alive) -> None:
        self.run_id, self._experiment = str(parent.info.run_id), str(parent.info.experiment_id)
        self._start = int(parent.info.start_time)
        self._client, self._objective, self._alive = client, tuple(objective), alive
        self._telling, self._ended = threading.Lock(), False
        runs = {int(run.data.tags[_TRIAL]): run for run in _children(client, parent)}
        self._told = {number for number, run in runs.items() if run.info.status != "RUNNING"}
        # Begun by a process that was killed before it had told all.
        self._begun = {number: run for number, run in runs.items() if number not in self._told}

    def tell(self, trial: TrialRecord) -> None:
        """Log a trial that has ended as a run of its own, in three requests; once. Others are left for later."""
        with self._telling:
            if trial.number in self._told or trial.state not in trial_metadata.STATUS:
                return
            run = self._begun.get(trial.number) or self._begin(trial)
            # The time is the same whichever process logs it: MLflow keeps one of two points that are alike.
            now = int(run.info.start_time)
            points = [
                Metric(key, value, now, epoch)
                for epoch, measured in trial_metadata.curve(trial)
                for key, value in measured.items()
            ]
            final = trial_metadata.metrics(trial, self._objective)
            points += [Metric(key, value, now, trial.epoch or 0) for key, value in final.items()]
            log(self._client, run.info.run_id, params=trial_metadata.params(trial), metrics=points)
            end = now + round(1000 * trial.seconds)
            self._client.set_terminated(run.info.run_id, trial_metadata.STATUS[trial.state], end)
            self._told.add(trial.number)

    def finish(self, record: StudyRecord, files: Sequence[Path]) -> None:
        """Log what a search found, with its files, and end its run; trials that were not logged before are logged.

        Raises:
            BadInput: a file is missing.
        """
        if self._ended:
            return
        for trial in record.trials:
            self.tell(trial)
        for path in files:
            if not path.is_file():
                raise BadInput(f"{path} is missing: run the search again, which writes it")
            self._client.log_artifact(self.run_id, str(path))
        now = int(time.time() * 1000)
        points = [Metric(key, value, now, 0) for key, value in trial_metadata.study_metrics(record).items()]
        log(self._client, self.run_id, metrics=[*self._history(record), *points])
        tag(self._client, self.run_id, trial_metadata.study_tags(record))
        self._end("FINISHED")

    def stopped(self) -> None:
        """End the run of a search that was stopped, or failed; `open_study` goes on in the same run."""
        if not self._ended:
            with telling():
                self._end("KILLED")

    def _begin(self, trial: TrialRecord) -> Run:
        start = int(time.time() * 1000) - round(1000 * trial.seconds)
        tags = {PARENT: self.run_id, **trial_metadata.tags(trial)}
        return self._client.create_run(self._experiment, start, tags, trial_metadata.run_name(trial))

    def _history(self, record: StudyRecord) -> list[Metric]:
        """Return the values of complete trials by their numbers, at one time, so that finishing twice adds none."""
        names = [
            f"study/{name.removeprefix('trial/')}_by_trial" for name in trial_metadata.value_names(self._objective)
        ]
        return [
            Metric(name, value, self._start, trial.number)
            for trial in record.trials
            if trial.state == "complete"
            for name, value in zip(names, trial.values, strict=False)
        ]

    def _end(self, status: str) -> None:
        self._client.set_terminated(self.run_id, status)
        self._ended = True
        self._alive.close()


def open_study(
    workspace: Workspace,
    name: str,
    config: Config,
    *,
    objective: Sequence[str],
    data_digest: str,
) -> StudyTracker:
    """Return the run of a search by its name: the one there is, or a new one.

    A run that is taken up again keeps its parameters, as MLflow wants; its tags follow the configuration.

    Args:
        workspace: where it runs.
        name: of the study.
        config: its configuration, which trials differ from.
        objective: what its values are, as in its record.
        data_digest: of the prepared data.

    Raises:
        BadInput: MLflow can't be reached, or its database can't be opened.
    """
    client = connect(workspace)
    experiment = experiment_id(workspace, client)
    end_killed(workspace, client, experiment)
    alive = Alive(workspace.locks, "run")
    given = {
        **run_metadata.origin(config, data_digest=data_digest, code=code_version()),
        STUDY: name,
        "generalist.objective": " and ".join(objective),
        ALIVE: alive.path.stem,
    }
    with workspace.one_at_a_time("open-study"):
        parent = _find_parent(client, experiment, name)
        if parent is None:
            parent = client.create_run(experiment, run_name=f"study {name}", tags=run_metadata.tags_of(given))
        else:
            tag(client, parent.info.run_id, given)
            client.update_run(parent.info.run_id, status="RUNNING")
        options = {path: value for path, value in run_metadata.params(config).items() if path not in parent.data.params}
        log(client, parent.info.run_id, params=options)
    return StudyTracker(client, parent, objective=objective, alive=alive)


def _find_parent(client: MlflowClient, experiment: str, name: str) -> Run | None:
    """Return the parent run of a study; compared here, as a name may hold what MLflow's queries can't."""
    runs = client.search_runs([experiment], f"tags.`{STUDY}` LIKE '%'", order_by=["attributes.start_time ASC"])
    return next((run for run in runs if run.data.tags[STUDY] == name), None)


def _children(client: MlflowClient, parent: Run) -> list[Run]:
    query, token = f"tags.{PARENT} = '{parent.info.run_id}'", None
    children: list[Run] = []
    while True:
        page = client.search_runs([parent.info.experiment_id], query, max_results=_A_PAGE, page_token=token)
        children += (run for run in page if _TRIAL in run.data.tags)
        token = page.token
        if not token:
            return children
