"""The Prefect flow `generalist-compare`: a comparison whose trainings are tasks, each in a process of its own."""

import json
import shlex
import time
from functools import partial
from pathlib import Path
from signal import Signals
from typing import Any
from uuid import UUID

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.states import Failed
from prefect.task_runners import ThreadPoolTaskRunner

from generalist.comparison import HARMONIC, NATURAL, ROBUST
from generalist.errors import BadInput
from pipelines import artifacts, deployment_limits
from pipelines.comparison import spec as specs
from pipelines.comparison.jobs import Folder, Job
from pipelines.comparison.run import JobProcess, default_name, folder_of
from pipelines.comparison.run import run as run_comparison
from pipelines.orchestration import flow_runs
from pipelines.orchestration.shutdown import end_in_time
from pipelines.tracking.comparisons import publish_comparison
from pipelines.workspace import Workspace

_GLANCE = 0.3  # seconds between two looks at a training
_MOST = 64  # trainings at once


@task(name="train", task_run_name="{title}", cache_policy=NO_CACHE, persist_result=False)
def follow(title: str, process: JobProcess) -> None:
    """Follow one training, from its first step to its evaluation."""
    while (code := process.poll()) is None:
        time.sleep(_GLANCE)
    if code:
        raise RuntimeError(f"{title} ended with code {code}: {process.last_log_line()}")


class _Task(JobProcess):
    """A training that Prefect shows."""

    def __init__(self, folder: Folder, job: Job) -> None:
        super().__init__(folder, job)
        self._shown: PrefectFuture[None] = follow.submit(self.name, self)

    def end(self, *, ask: Signals | None = None, within: float | None = None) -> None:
        super().end(ask=ask, within=within)
        self._shown.wait()


@flow(
    name="generalist-compare",
    # Prefect's own annotations refuse its own runners: TaskRunner is invariant in its futures.
    task_runner=ThreadPoolTaskRunner(max_workers=_MOST),  # type: ignore[arg-type]
    persist_result=False,
)
def comparison_flow(
    presets: list[str] = [],  # noqa: B006  so that the deployment's form shows an empty list; nobody changes it
    overrides: list[str] = [],  # noqa: B006  as above
    file: str | None = None,
    seeds: int | None = None,
    budget: str | None = None,
    name: str | None = None,
    workers: int = 2,
) -> Any:
    """Train presets under several seeds, measure them by one protocol, and draw the front.

    Args:
        presets: what is compared.
        overrides: dotted paths, such as ["evaluation.attack=quick"].
        file: a declared comparison instead of presets: its name, or a path in the project.
        seeds: trainings of each; by default 3.
        budget: of each training, such as "2e6 passes" or "60 s"; by default each has its own epochs.
        name: of the comparison, to go on with it; by default one that follows from what is compared.
        workers: trainings at once.
    """
    say = get_run_logger().info
    end_in_time(partial(flow_runs.stopped, UUID(flow_run.id)))
    try:
        workspace = Workspace.find()
        flow_runs.begin(workspace, UUID(flow_run.id))
        spec = _asked(workspace, presets, file, seeds, budget, overrides)
        called = name or default_name(spec)
        folder = folder_of(workspace, called)
        flow_runs.rename(UUID(flow_run.id), called)
        given = {"presets": presets, "overrides": overrides, "file": file, "seeds": seeds, "budget": budget}
        given_again = shlex.quote(json.dumps({**given, "name": called}))
        command = f"prefect deployment run generalist-compare/compare --params {given_again}"
        found = run_comparison(
            workspace, spec, name=called, command=command, workers=min(workers, _MOST), tell=say, shown=_Task
        )
        publish_comparison(workspace, found, folder.files)
    except BadInput as error:
        return Failed(message=str(error), data=error)  # the sentence alone, where raising would show a traceback
    rows = {row.title: {name: row.spread(name).mean for name in (NATURAL, ROBUST, HARMONIC)} for row in found.rows()}
    artifacts.comparison([f"{title}: {values}" for title, values in rows.items()], folder.page)
    return {"page": str(folder.page), "front": [row.title for row in found.front()], "rows": rows}


def _asked(
    workspace: Workspace,
    presets: list[str],
    file: str | None,
    seeds: int | None,
    budget: str | None,
    overrides: list[str],
) -> specs.ComparisonSpec:
    """Return the comparison that is asked for, none of whose paths leads out of the project.

    Raises:
        BadInput: one does, or it is wrong.
    """
    if file is not None and file.endswith((".yaml", ".yml")):
        deployment_limits.check_within(Path(file), workspace)
    spec = specs.asked(presets, file, seeds, budget, overrides)
    for line in specs.lines(spec):
        changes = [*line.overrides, *spec.evaluation]
        deployment_limits.configuration(workspace, params=None, preset=line.preset, overrides=changes, trusted=False)
    return spec
