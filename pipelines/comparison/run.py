"""A whole comparison: trainings side by side, each in a process; what is there is used again."""

import os
import time
from collections.abc import Callable, Sequence

from generalist.atomic_files import write_atomically
from generalist.comparison import Comparison
from generalist.config import digest
from generalist.config.names import check_name
from generalist.errors import BadInput
from generalist.report.frontier import build
from pipelines.comparison.jobs import Folder, Job, Plan, planned
from pipelines.comparison.spec import COMPARISON, ComparisonSpec
from pipelines.end_with_parent import Child
from pipelines.workspace import Workspace

Tell = Callable[[str], None]
_GLANCE = 0.2  # seconds between two looks at the processes


class JobProcess(Child):
    """A training in a process of its own."""

    def __init__(self, folder: Folder, job: Job) -> None:
        module = ["pipelines.comparison.worker", str(folder.path), job.key]
        super().__init__(f"{job.title}, seed {job.seed}", module, os.environ, folder.logs / f"{job.key}.log")


def default_name(spec: ComparisonSpec) -> str:
    """Return the name of a comparison that was given none: the same for the same one."""
    return f"comparison-{digest(spec.model_dump(mode='json'))[:8]}"


def folder_of(workspace: Workspace, name: str) -> Folder:
    """Return where a comparison lies.

    Raises:
        BadInput: it can't be called so.
    """
    return Folder(workspace.comparisons / check_name(name, COMPARISON))


def run(
    workspace: Workspace,
    spec: ComparisonSpec,
    *,
    name: str,
    command: str,
    workers: int | None,
    tell: Tell,
    shown: Callable[[Folder, Job], JobProcess] = JobProcess,
) -> Comparison:
    """Begin a comparison or go on with one, until all trainings are there; write page and tables.

    Args:
        workspace: where.
        spec: what is compared.
        name: of its folder.
        command: that makes it, for readers.
        workers: how many trainings go on at once; by default as many as there are CPU cores.
        tell: is told, line by line, what happens.
        shown: what a training is here: a process, and perhaps something by which people see it.

    Raises:
        BadInput: a preset is wrong, another process is at it, or trainings failed.
    """
    folder = folder_of(workspace, name)
    with workspace.alone(f"comparison-{name}", "comparison", f"is writing {name}/"):
        plan = planned(folder, spec, workspace)
        waiting = list({job.key: job for job in plan.jobs if not folder.training(job).is_file()}.values())
        tell(f"comparison {name}: {len(plan.jobs)} trainings, {len(waiting)} of them to do")
        try:
            failed = _train(folder, waiting, workers or os.cpu_count() or 1, tell, shown)
        finally:
            comparison = write(folder, name, plan, command)
    if failed:
        raise BadInput(f"{len(failed)} of {len(plan.jobs)} trainings failed, the others are there: {'; '.join(failed)}")
    return comparison


def write(folder: Folder, name: str, plan: Plan, command: str) -> Comparison:
    """Write what there is of a comparison: record and table, and a page once a training is there."""
    comparison = folder.comparison(name, plan, command)
    write_atomically(folder.record, (comparison.model_dump_json(indent=1) + "\n").encode())
    if comparison.trainings:
        write_atomically(folder.table, comparison.as_csv().encode())
        write_atomically(folder.page, build(comparison).encode())
    return comparison


def _train(
    folder: Folder, jobs: Sequence[Job], workers: int, tell: Tell, shown: Callable[[Folder, Job], JobProcess]
) -> list[str]:
    """Train so many at once; return why some failed."""
    waiting, running, failed = list(jobs), list[JobProcess](), list[str]()
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                running.append(shown(folder, waiting.pop(0)))
            time.sleep(_GLANCE)
            for process in [process for process in running if process.poll() is not None]:
                running.remove(process)
                if process.poll():
                    failed.append(f"{process.name} ({process.last_log_line()})")
                    tell(f"failed: {failed[-1]}")
                else:
                    left = len(waiting) + len(running)
                    tell(f"{process.name}: done, {left} to go")
        return failed
    finally:
        for process in running:
            process.end()
