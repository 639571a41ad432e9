"""What all runs have: a tag with the lock of their process, and requests no longer than MLflow takes."""

from collections.abc import Mapping, Sequence

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from pipelines.locks import tried
from pipelines.tracking.run_metadata import tags_of
from pipelines.workspace import Workspace

ALIVE = "generalist.alive"  # tag: the name of a lock that the run's process holds
_PARAMS_A_CALL, _ENTITIES_A_CALL = 100, 1000  # MLflow's limits


def end_killed(workspace: Workspace, client: MlflowClient, experiment: str) -> list[str]:
    """End the runs of this workspace whose process was killed, and return their ids.

    A lock goes with its process, so a free one tells of its end for certain, which a process id does not.
    Runs of other workspaces have no lock here and are left alone.
    """
    ended = []
    for run in client.search_runs([experiment], "attributes.status = 'RUNNING'"):
        path = workspace.locks / f"{run.data.tags.get(ALIVE, 'none')}.lock"
        if not path.is_file():
            continue
        with tried(path) as dead:
            if dead:
                client.set_terminated(run.info.run_id, "KILLED")
                ended.append(str(run.info.run_id))
                path.unlink(missing_ok=True)
    return ended


def log(
    client: MlflowClient, run_id: str, *, params: Mapping[str, str] | None = None, metrics: Sequence[Metric] = ()
) -> None:
    """Log in as few requests as MLflow allows: one, but for a whole configuration and very long curves."""
    pending = [Param(path, value) for path, value in (params or {}).items()]
    while pending or metrics:
        some, pending = pending[:_PARAMS_A_CALL], pending[_PARAMS_A_CALL:]
        room = _ENTITIES_A_CALL - len(some)
        client.log_batch(run_id, metrics=metrics[:room], params=some)
        metrics = metrics[room:]


def tag(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags, no longer than MLflow takes."""
    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags_of(tags).items()])
