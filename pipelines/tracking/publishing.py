"""A run for a training that MLflow knows nothing of: DVC's run cache restores outputs without running anything."""

from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

from generalist.errors import BadInput
from generalist.export import Lineage, read_metadata
from pipelines.tracking.database import connect, experiment_id
from pipelines.tracking.outputs import Outputs
from pipelines.tracking.tracker import ONNX_SHA256, end_killed, open_run
from pipelines.workspace import CodeVersion, Workspace


def publish(workspace: Workspace, folder: Path) -> str:
    """The id of the run that made the ONNX file in a folder of outputs; if there is none, it is made from them.

    Raises:
        BadInput: a file is missing or damaged, or MLflow can't be reached.
    """
    outputs = Outputs(folder)
    sha256 = outputs.sha256()
    client = connect(workspace)
    experiment = experiment_id(workspace, client)
    with workspace.one_at_a_time("publish"):
        known = finished_runs(client, experiment, sha256)
        if known:
            return str(known[0].info.run_id)
        end_killed(workspace, client, experiment)
        return _made_from(outputs, workspace, client, experiment)


def finished_runs(client: MlflowClient, experiment: str, sha256: str) -> list[Run]:
    """The complete runs that made an ONNX file, newest first."""
    query = f"attributes.status = 'FINISHED' and tags.{ONNX_SHA256} = '{sha256}'"
    return list(client.search_runs([experiment], query, order_by=["attributes.start_time DESC"]))


def _made_from(outputs: Outputs, workspace: Workspace, client: MlflowClient, experiment: str) -> str:
    config, history = outputs.config(), outputs.history()
    lineage = Lineage.from_metadata(read_metadata(outputs.model))
    tracker = open_run(
        workspace,
        client,
        experiment,
        config,
        data_digest=lineage.data_digest,
        code=CodeVersion(lineage.git_commit, lineage.dirty),
        tags={"published": "from outputs that were there already"},
    )
    try:
        tracker.log(*history.epochs, *history.course, *history.rounds)
        tracker.finish(outputs.folder)
    except BadInput:
        tracker.fail(reason="its outputs are damaged")
        raise
    return tracker.run_id
