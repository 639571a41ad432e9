"""Flow runs of this project: named as in MLflow, and ended in Prefect, too, where their process was killed.

Prefect can't tell a run whose process was killed from one that takes long. Here a lock goes with the process.
"""

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from uuid import UUID, uuid4

from filelock import FileLock, Timeout
from prefect import tags
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.context import TagsContext
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from pipelines.workspace import Workspace

_UNDER_WAY = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
_KILLED = "its process was killed, or the machine stopped; what it had trained is in the store"
_STOPPED = "it was stopped by a signal; what it had trained is in the store"
_TAG = "process:"
_held: list[FileLock] = []


def begin(workspace: Workspace, run: UUID) -> None:
    """Show that a flow run is under way as long as this process lives; the runs of dead processes are ended first.

    The lock stays to the process's end: the last states of tasks are told only then.

    Args:
        workspace: whose flow runs these are.
        run: the flow run's id.
    """
    end_dead(workspace)
    lock = FileLock(_lock_path(workspace, run))
    with workspace.one_at_a_time("flow-runs"):  # between making a lock and taking it, no process may find it free
        lock.acquire()
    _held.append(lock)


@contextmanager
def announced(workspace: Workspace) -> Iterator[None]:
    """Show from before a flow run exists that its process lives: a tag of the run names a lock.

    Between its beginning and `begin` a run has no other sign, and would be under way for ever if it were killed then.
    """
    token = uuid4()
    lock = FileLock(_lock_path(workspace, token))
    with workspace.one_at_a_time("flow-runs"):  # as in `begin`
        lock.acquire()
    try:
        with tags(_TAG + str(token)):
            yield
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


def untagged() -> AbstractContextManager[object]:
    """Keep tasks inside from taking on the tags of their flow run."""
    return TagsContext(current_tags=set())


def rename(run: UUID, name: str) -> None:
    """Give a flow run a name that says more than Prefect's."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_name(run, name)


def end_dead(workspace: Workspace, *, deployments: Collection[str] = ()) -> list[UUID]:
    """End the flow runs of dead processes and their tasks, and return the runs' ids.

    Runs of other projects have no lock here and are left alone.

    Args:
        workspace: whose flow runs these are.
        deployments: those that are not served yet: a run of theirs that is under way without a lock never got so far.
    """
    ended = []
    with get_client(sync_client=True) as client, workspace.one_at_a_time("flow-runs"):
        for path in sorted(workspace.locks.glob("flow-*-*.lock")):
            try:
                with FileLock(path, timeout=0):
                    name = UUID(path.stem.removeprefix("flow-"))
                    for run in (name, *_runs_with_tag(client, name)):
                        if _end(client, run, _KILLED):
                            ended.append(run)
                            path.unlink(missing_ok=True)
            except Timeout:
                continue
        if deployments:
            for run in _runs_under_way(client, deployments):
                if not _lock_path(workspace, run).exists():
                    _end(client, run, _KILLED)
                    ended.append(run)
    return ended


def stopped(run: UUID) -> None:
    """End a run of this process, which is about to end, and its tasks; where that fails, the next one does it."""
    with suppress(Exception), get_client(sync_client=True) as client:
        _end(client, run, _STOPPED)


def _end(client: SyncPrefectClient, run: UUID, why: str) -> bool:
    """End a run and its tasks; whether the server knows it: another one may have been asked then."""
    try:
        state = client.read_flow_run(run).state
    except ObjectNotFound:
        return False
    if state is None or not state.is_final():
        client.set_flow_run_state(run, Crashed(message=why), force=True)
    of_it = FlowRunFilter(id=FlowRunFilterId(any_=[run]))
    under_way = TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=_UNDER_WAY)))
    while tasks := client.read_task_runs(flow_run_filter=of_it, task_run_filter=under_way):
        for task in tasks:
            client.set_task_run_state(task.id, Crashed(message=why), force=True)
    return True


def _runs_with_tag(client: SyncPrefectClient, token: UUID) -> list[UUID]:
    """Return the run whose process held that lock from the start on."""
    tag = FlowRunFilterTags(all_=[_TAG + str(token)])
    return [run.id for run in client.read_flow_runs(flow_run_filter=FlowRunFilter(tags=tag))]


def _runs_under_way(client: SyncPrefectClient, deployments: Collection[str]) -> list[UUID]:
    runs = client.read_flow_runs(
        deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=list(deployments))),
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_UNDER_WAY))),
    )
    return [run.id for run in runs]


def _lock_path(workspace: Workspace, run: UUID) -> Path:
    return workspace.locks / f"flow-{run}.lock"
