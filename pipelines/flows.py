"""The Prefect flow `generalist`: the one plan of a training as tasks, with retries and artifacts."""

import os
from contextlib import ExitStack
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import State, flow, get_run_logger
from prefect.runtime import flow_run
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Failed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from generalist import engine
from generalist.config import Config
from generalist.errors import BadInput
from pipelines import artifacts, deployment_limits
from pipelines.orchestration import flow_runs
from pipelines.orchestration.shutdown import end_in_time
from pipelines.progress import Progress
from pipelines.results import Results, check_target
from pipelines.results_manifest import move_into_place, writing
from pipelines.run_context import ProgressListener, RunContext, RunSpec, followed, open_training
from pipelines.submitting import evaluate, train
from pipelines.tasks import export, prepare, publish, report
from pipelines.tracking import run_name, start
from pipelines.workspace import Workspace


class _Here:
    """Who follows the flow in this process, and how it failed, if it did.

    A flow's own parameters and result must be plain values.
    """

    def __init__(self, watch: ProgressListener, *, trusted: bool) -> None:
        self.watch, self.trusted = watch, trusted
        self.failure: BaseException | None = None
        self._impatient = ExitStack()

    def failed(self, error: BaseException) -> None:
        """Remember how the flow failed; Prefect, which may be what fails, is not told of it for minutes."""
        self.failure = error
        if self.trusted:
            self._impatient.enter_context(temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 1}))

    def close(self) -> None:
        """Be as patient as before."""
        self._impatient.close()

    def folder(self, given: str | None, workspace: Workspace) -> Path:
        """Return where results go; a deployment's parameters come from elsewhere, and may not name every place."""
        if not given:
            return workspace.runs / str(flow_run.id)
        return Path(given) if self.trusted else deployment_limits.check_below(Path(given), workspace)


_here: ContextVar[_Here | None] = ContextVar("here", default=None)


def _current_caller() -> _Here:
    """Return who follows this flow run. Apart from the flow, which Prefect pickles with the globals that it names."""
    return _here.get() or _Here(Progress(write=get_run_logger().info), trusted=False)


@flow(
    name="generalist",
    # Prefect's own annotations refuse its own runners: TaskRunner is invariant in its futures.
    task_runner=ThreadPoolTaskRunner(max_workers=max(2, os.cpu_count() or 2)),  # type: ignore[arg-type]
    persist_result=False,
)
def generalist_flow(
    preset: str | None = None,
    overrides: list[str] = [],  # noqa: B006  so that the deployment's form shows an empty list; nobody changes it
    params: str | None = None,
    outputs: str | None = None,
) -> "dict[str, str] | State[Any]":  # in quotes: pickled with the flow, and a class of pydantic's making
    """Train experts, mix them into a global learner, evaluate, export and register it.

    Args:
        preset: name of a preset; by default the project's params.yaml is used.
        overrides: dotted paths, such as ["mixing.interval=3"].
        params: a configuration file instead of the project's.
        outputs: folder of the results; by default runs/ID, ID being the flow run's.
    """
    caller = _current_caller()
    end_in_time(partial(flow_runs.stopped, UUID(flow_run.id)))
    try:
        workspace = Workspace.find()
        flow_runs.begin(workspace, UUID(flow_run.id))
        config = deployment_limits.configuration(
            workspace, params=params, preset=preset, overrides=overrides, trusted=caller.trusted
        )
        target = Results(caller.folder(outputs, workspace))
        check_target(target, workspace)
        flow_runs.rename(UUID(flow_run.id), run_name(config))
        with writing(target, workspace) as staged, flow_runs.untagged():
            return _run(config, workspace, staged, target, caller.watch)
    except BadInput as error:
        caller.failed(error)
        return Failed(message=str(error), data=error)  # the sentence alone, where raising would show a traceback
    except BaseException as error:
        caller.failed(error)
        raise


def run(
    *,
    watch: ProgressListener,
    params: Path | None = None,
    preset: str | None = None,
    overrides: list[str],
    outputs: Path,
    task_runner: TaskRunner[Any] | None = None,
) -> dict[str, str]:
    """Run the flow in this process with a listener; `task_runner` says where its tasks run, by default in threads.

    Raises:
        BadInput: something a user can mend.
    """
    caller = _Here(watch, trusted=True)
    token = _here.set(caller)
    try:
        with flow_runs.announced(Workspace.find()):
            training_flow = (
                generalist_flow if task_runner is None else generalist_flow.with_options(task_runner=task_runner)
            )
            state = training_flow(
                preset=preset,
                overrides=overrides,
                params=None if params is None else str(params),
                outputs=str(outputs),
                return_state=True,
            )
        if isinstance(caller.failure, BadInput):
            raise caller.failure
        result = state.result()
        assert not isinstance(result, State)  # Prefect puts the state that a flow returns in place of its own
        return result
    except Exception:
        if caller.failure is not None:  # Prefect may have failed to tell of it, too
            raise caller.failure from caller.failure.__cause__
        raise
    finally:
        caller.close()
        _here.reset(token)


def _run(
    config: Config, workspace: Workspace, staged: Results, target: Results, watch: ProgressListener
) -> dict[str, str]:
    spec: RunSpec = {
        "id": str(flow_run.id),
        "root": str(workspace.root),
        "here": str(workspace.here),
        "config": engine.with_device(config).model_dump(mode="json"),
        "data": "",
        "staged": str(staged.folder),
    }
    spec = {**spec, "data": prepare(f"prepare {config.data.name}", spec)}
    training = open_training(spec)
    watch.say(f"on {engine.told(training.config.training.device)}")
    tracker = start(workspace, training.config, training.dataset)
    job = RunContext(training, tracker, watch)
    try:
        with followed(job, spec):
            end = train(job, spec)
            evaluation = evaluate(job, spec, end, staged)
            export("export ONNX", spec, end)
            report("write report", spec, end)
            move_into_place(staged, target)
            tracker.finish(target)
            registration = publish("register", spec, str(target.folder))
    except BaseException:
        tracker.fail()
        raise
    artifacts.links(target, tracker.link, registration.sentence)
    return {
        "outputs": str(target.folder),
        "weights": evaluation.headline.digest,
        "onnx_sha256": registration.sha256,
        "mlflow_run": registration.run_id,
        "registered": registration.sentence,
    }
