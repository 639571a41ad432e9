"""A run for a training that MLflow knows nothing of: DVC restores outputs without running anything."""

from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import Run

from generalist.config import load
from generalist.export import Lineage, read_metadata
from generalist.records import History
from pipelines.results import Results
from pipelines.tracking.logged_model import sha256_of
from pipelines.tracking.mlflow_database import connect, experiment_id
from pipelines.tracking.runs import end_killed
from pipelines.tracking.tracker import MANIFEST_SHA256, ONNX_SHA256, open_run
from pipelines.workspace import CodeVersion, Workspace


def publish(workspace: Workspace, results: Results) -> str:
    """Return the id of the run that keeps these very results; if there is none, it is made from them.

    Raises:
        BadInput: a file is missing or damaged, or MLflow can't be reached.
    """
    tags = {ONNX_SHA256: sha256_of(results.onnx), MANIFEST_SHA256: sha256_of(results.manifest)}
    client = connect(workspace)
    experiment = experiment_id(workspace, client)
    with workspace.one_at_a_time("publish"):
        known = finished_runs(client, experiment, tags)
        if known:
            return str(known[0].info.run_id)
        end_killed(workspace, client, experiment)
        return _make_run(results, workspace, client, experiment)


def finished_runs(client: MlflowClient, experiment: str, tags: Mapping[str, str]) -> list[Run]:
    """Return the complete runs with these tags, such as the digest of an ONNX file, newest first."""
    query = " and ".join(["attributes.status = 'FINISHED'", *(f"tags.{tag} = '{text}'" for tag, text in tags.items())])
    return list(client.search_runs([experiment], query, order_by=["attributes.start_time DESC"]))


def _make_run(results: Results, workspace: Workspace, client: MlflowClient, experiment: str) -> str:
    config, history = load(results.params), results.read(History, results.history)
    lineage = Lineage.from_metadata(read_metadata(results.onnx))
    tracker = open_run(
        workspace,
        client,
        experiment,
        config,
        data_digest=lineage.data_digest,
        code=CodeVersion(lineage.git_commit, lineage.dirty),
        tags={"published": "from results that were there already"},
    )
    try:
        tracker.log(*history.epochs, *history.course, *history.rounds)
        tracker.finish(results)
    except BaseException:
        tracker.fail()
        raise
    return tracker.run_id
