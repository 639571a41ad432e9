"""One MLflow run for one training, from its start to its end, also where it fails."""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow import MlflowClient
from mlflow.entities import Dataset as LoggedDataset
from mlflow.entities import DatasetInput, InputTag, Metric

from generalist.config import Config
from generalist.errors import BadInput
from generalist.records import EpochRecord, Evaluation
from pipelines.error_reporting import telling
from pipelines.locks import Alive
from pipelines.results import Results
from pipelines.tracking import run_metadata
from pipelines.tracking.logged_model import log_model, sha256_of
from pipelines.tracking.mlflow_database import connect, experiment_id, has_server, runs_page
from pipelines.tracking.runs import ALIVE, end_killed, log, tag
from pipelines.workspace import CodeVersion, Workspace, code_version

if TYPE_CHECKING:
    from generalist.data import Dataset

ONNX_SHA256 = "onnx_sha256"
MANIFEST_SHA256 = "manifest_sha256"
"""Tag of a run and of a version: SHA-256 (hex) of the manifest among the run's files, which binds all of them."""
_LONGEST_DIGEST = 36
_SECOND = 1.0  # between two requests for short epochs: each is a transaction of MLflow's


class Tracker:
    """An open run. Threads may share it.

    Attributes:
        run_id: MLflow's.
        name: the run's, for people.
    """

    def __init__(self, client: MlflowClient, run_id: str, config: Config, *, alive: Alive) -> None:
        run = client.get_run(run_id)
        self.run_id, self.name, self._experiment = run_id, str(run.info.run_name), str(run.info.experiment_id)
        self._client, self._config, self._alive = client, config, alive
        self._told: set[tuple[str, int]] = set()
        self._kept: list[Metric] = []
        self._sent = time.monotonic()
        self._telling = threading.Lock()
        self._ended = False

    @property
    def link(self) -> str | None:
        """The run's page; None where no server shows it."""
        uri = str(self._client.tracking_uri)
        server = uri if has_server(uri) else os.environ.get("GENERALIST_MLFLOW_PAGES")  # set by `make serve`
        return f"{runs_page(server, self._experiment)}/{self.run_id}" if server else None

    def epoch(self, record: EpochRecord) -> None:
        """Log one epoch of one expert; where epochs are short, together with those of the next second."""
        self._keep([record])
        if time.monotonic() - self._sent >= _SECOND:
            self._send()

    def log(self, *records: run_metadata.Fact) -> None:
        """Log facts at their epochs, in one request; what was logged before is left out."""
        self._keep(records)
        self._send()

    def _keep(self, records: Sequence[run_metadata.Fact]) -> None:
        now, deployed = int(time.time() * 1000), self._config.deploy.removeprefix("expert:")
        with self._telling:
            for record in records:
                for key, value in run_metadata.metrics(record, deployed=deployed).items():
                    if (key, record.epoch) not in self._told:
                        self._told.add((key, record.epoch))
                        self._kept.append(Metric(key, value, now, record.epoch))

    def _send(self) -> None:
        with self._telling:
            points, self._kept, self._sent = self._kept, [], time.monotonic()
        try:
            log(self._client, self.run_id, metrics=points)
        except BaseException:
            with self._telling:  # they are not recorded again
                self._kept = points + self._kept
            raise

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags, such as the id of the Prefect flow run."""
        tag(self._client, self.run_id, tags)

    def finish(self, results: Results, *, also: Sequence[Path] = ()) -> None:
        """Log what a finished training put down (final metrics, files, model) and end the run; once.

        `also` are files beside those that all results have.

        Raises:
            BadInput: a file is missing or damaged, or MLflow holds other bytes of the model afterwards.
        """
        if self._ended:
            return
        evaluation, sha256 = results.read_evaluation(), sha256_of(results.onnx)
        self._send()
        for path in (*results.all(), *results.widths(), *also):
            if path != results.onnx:  # it comes with the model
                self._log_file(path)
        model = log_model(
            self._client,
            results.onnx,
            run_id=self.run_id,
            name=evaluation.deployed,
            step=evaluation.chosen.epoch,
            params=run_metadata.params(self._config),
            tags={ONNX_SHA256: sha256},
        )
        self._log_evaluation(evaluation, model.model_id)
        # The last: a run with this tag is complete.
        self.tag(
            {**run_metadata.outcome(evaluation), ONNX_SHA256: sha256, MANIFEST_SHA256: sha256_of(results.manifest)}
        )
        self._end("FINISHED")

    def fail(self) -> None:
        """End the run of a training that failed, or was stopped; called where its exception is handled.

        What fails after `finish` is not the training: the run stays finished. Where MLflow can't be told, the next
        start ends the run, and the failure is the one that is told.
        """
        if self._ended:
            return
        error = sys.exception()
        with telling():  # that it ended is told all the same
            self._send()
        stopped = error is not None and not isinstance(error, Exception)  # Ctrl-C, or a task that was cancelled
        # Only our own sentences: others' messages may hold anything, secrets included.
        with telling():
            self.tag({"reason": str(error) if isinstance(error, BadInput) else type(error).__name__})
        with telling():
            self._end("KILLED" if stopped else "FAILED")

    def _log_file(self, path: Path) -> None:
        if not path.is_file():
            raise BadInput(f"{path} is missing: make it with `dvc repro`")
        self._client.log_artifact(self.run_id, str(path))

    def _log_evaluation(self, evaluation: Evaluation, model_id: str) -> None:
        now, chosen = int(time.time() * 1000), evaluation.chosen.epoch
        data = (f"{self._config.data.name} {evaluation.protocol.split}", evaluation.protocol.test_digest)
        points = [
            Metric(key, value, now, learner.epoch)
            for name, learner in evaluation.learners.items()
            if name != evaluation.deployed
            for key, value in run_metadata.of_learner(learner, evaluation.protocol).items()
        ]
        deployed = {
            **run_metadata.of_learner(evaluation.headline, evaluation.protocol),
            **run_metadata.of_choice(evaluation),
        }
        points += [
            Metric(key, value, now, chosen, model_id, data[0], data[1][:_LONGEST_DIGEST])
            for key, value in deployed.items()
        ]
        log(self._client, self.run_id, metrics=points)

    def _end(self, status: str) -> None:
        self._client.set_terminated(self.run_id, status)
        self._ended = True
        self._alive.close()


def start(
    workspace: Workspace, config: Config, dataset: "Dataset", *, tags: Mapping[str, str] | None = None
) -> Tracker:
    """Open a run for a training; runs whose process was killed are ended first.

    Raises:
        BadInput: MLflow can't be reached, or its database can't be opened.
    """
    client = connect(workspace)
    experiment = experiment_id(workspace, client)
    end_killed(workspace, client, experiment)
    tracker = open_run(
        workspace, client, experiment, config, data_digest=dataset.digest, code=code_version(), tags=tags or {}
    )
    client.log_inputs(tracker.run_id, [_dataset_input(config.data.name, dataset)])
    return tracker


def open_run(
    workspace: Workspace,
    client: MlflowClient,
    experiment: str,
    config: Config,
    *,
    data_digest: str,
    code: CodeVersion,
    tags: Mapping[str, str],
) -> Tracker:
    """Make a run with its parameters and tags; while its process lives, a lock shows that it does."""
    alive = Alive(workspace.locks, "run")
    process = f"{os.getpid()} on {socket.gethostname()}"
    given = {**run_metadata.origin(config, data_digest=data_digest, code=code), **run_metadata.tags_of(tags)}
    run = client.create_run(
        experiment,
        run_name=run_metadata.run_name(config),
        tags={**given, ALIVE: alive.path.stem, "generalist.process": process},
    )
    log(client, run.info.run_id, params=run_metadata.params(config))
    return Tracker(client, run.info.run_id, config, alive=alive)


def _dataset_input(name: str, dataset: "Dataset") -> DatasetInput:
    """Return the data as MLflow lists them; its digests are short, so the whole one is a tag of the run."""
    sizes = {"train": len(dataset.train), "validation": len(dataset.validation), "test": len(dataset.test)}
    digest = dataset.digest[:_LONGEST_DIGEST]
    entity = LoggedDataset(name, digest, "local", json.dumps({"uri": "data/prepared"}), profile=json.dumps(sizes))
    return DatasetInput(entity, tags=[InputTag("mlflow.data.context", "training")])
