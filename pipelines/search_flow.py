"""The Prefect flow `generalist-tune`: a search whose workers are tasks, each in a process of its own."""

import time
from functools import partial
from signal import Signals
from typing import Any
from uuid import UUID

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.states import Failed
from prefect.task_runners import ThreadPoolTaskRunner

from generalist.config.names import check_name
from generalist.errors import BadInput
from pipelines import artifacts, deployment_limits
from pipelines.orchestration import flow_runs
from pipelines.orchestration.shutdown import end_in_time
from pipelines.tuning import run_search, summary
from pipelines.tuning.study import SEARCH, default_name
from pipelines.tuning.worker_pool import LocalWorker
from pipelines.workspace import Workspace

_GLANCE = 0.3  # seconds between two looks at a worker
_MOST = 64  # workers at once


@task(name="work", task_run_name="worker {number}", cache_policy=NO_CACHE, persist_result=False)
def work(number: int, process: LocalWorker) -> None:
    """Follow one worker, from its first trial to its last."""
    while (code := process.poll()) is None:
        time.sleep(_GLANCE)
    if code:
        raise RuntimeError(f"worker {number} ended with code {code}: {process.last_log_line()}")


class _Task(LocalWorker):
    """A worker that Prefect shows."""

    def __init__(self, workspace: Workspace, name: str, address: str, number: int) -> None:
        super().__init__(workspace, name, address, number)
        self._shown: PrefectFuture[None] = work.submit(number, self)

    def end(self, *, ask: Signals | None = None, within: float | None = None) -> None:
        super().end(ask=ask, within=within)
        self._shown.wait()


@flow(
    name="generalist-tune",
    # Prefect's own annotations refuse its own runners: TaskRunner is invariant in its futures.
    task_runner=ThreadPoolTaskRunner(max_workers=_MOST),  # type: ignore[arg-type]
    persist_result=False,
)
def search_flow(
    preset: str | None = None,
    overrides: list[str] = [],  # noqa: B006  so that the deployment's form shows an empty list; nobody changes it
    params: str | None = None,
    name: str | None = None,
    workers: int = 2,
) -> Any:
    """Search the declared space for the best trade-off, and put down what was found.

    Args:
        preset: name of a preset; by default the project's params.yaml is used.
        overrides: dotted paths, such as ["tuning.trials=20"].
        params: a configuration file instead of the project's.
        name: of the search, to go on with it; by default one that follows from the configuration.
        workers: processes that train.
    """
    say = get_run_logger().info
    end_in_time(partial(flow_runs.stopped, UUID(flow_run.id)))
    try:
        workspace = Workspace.find()
        flow_runs.begin(workspace, UUID(flow_run.id))
        config = deployment_limits.configuration(
            workspace, params=params, preset=preset, overrides=overrides, trusted=False
        )
        called = check_name(name, SEARCH) if name else default_name(config)
        flow_runs.rename(UUID(flow_run.id), called)
        search, record = run_search.run(
            workspace, config, name=called, address=None, workers=min(workers, _MOST), tell=say, shown=_Task
        )
    except BadInput as error:
        return Failed(message=str(error), data=error)  # the sentence alone, where raising would show a traceback
    artifacts.search(list(summary.lines(record)), run_search.files_of(workspace, search).page)
    return summary.as_json(record)
