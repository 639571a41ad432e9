"""The Prefect flow `generalist`: the one plan of a training as tasks, with retries and artifacts."""

import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import State, flow, get_run_logger, task, unmapped
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, wait
from prefect.runtime import flow_run
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Failed
from prefect.task_runners import ThreadPoolTaskRunner

from generalist import engine
from generalist.config import Config
from generalist.errors import BadInput
from generalist.evaluation import Shard, Verdicts
from generalist.export import Parity
from generalist.records import Evaluation
from generalist.store import Lost
from generalist.training import Cuts, Outcome, Positions, Round, RoundEnd, Training, drive, runner
from pipelines import artifacts, boundary, steps
from pipelines.job import Job, Watch
from pipelines.manifest import put_down, writing
from pipelines.orchestration import flow_runs
from pipelines.orchestration.ending import end_in_time
from pipelines.progress import Progress
from pipelines.registry import Registration, register
from pipelines.results import Results, check_target
from pipelines.tracking import run_name, start
from pipelines.workspace import Workspace


def _worth_retrying(_task: Any, _run: Any, state: Any) -> bool:
    """Retry all but wrong input, which stays wrong: it may have been the machine, and work goes on from the store."""
    try:
        state.result()
    except BadInput:
        return False
    except Exception:  # noqa: BLE001  whatever it was
        return True
    return True


step = task(
    task_run_name="{label}",
    cache_policy=NO_CACHE,  # the store knows better what can be used again
    persist_result=False,
    retries=1,
    retry_delay_seconds=1,
    retry_condition_fn=_worth_retrying,
)


@step
def prepare(label: str, config: Config, workspace: Workspace) -> Training:
    """Verify prepared data, and return the training over it."""
    return steps.training(config, workspace)


@step
def advance(label: str, job: Job, round_: Round, unit: tuple[str, ...], positions: Positions) -> Cuts:
    """Train one unit of experts to the end of a round."""
    return job.runner.advance_unit(round_, unit, positions)


@step
def mix(label: str, job: Job, round_: Round, cuts: Cuts) -> RoundEnd:
    """End a round: measure the global learner, hand it back."""
    end = job.runner.mix(round_, cuts)
    artifacts.rounds(job.facts.all())
    return end


@step
def evaluate(label: str, job: Job, found: Outcome, name: str, rows: range) -> Shard:
    """Evaluate one learner on the test split, or on a shard of it."""
    learner = name if rows == range(steps.shards(job.training)[-1].stop) else f"{name}, {_images(rows)}"
    return steps.evaluate_shard(job.training, found, name, rows, watch=partial(job.attacked, learner))


@step
def export(label: str, job: Job, found: Outcome, evaluation: Evaluation, verdicts: Mapping[str, Verdicts]) -> Parity:
    """Write the ONNX file, and compare it with torch."""
    adversarial = verdicts[evaluation.deployed].adversarial
    return steps.export_model(job.training, found, evaluation, adversarial, job.staged)


@step
def report(label: str, job: Job, found: Outcome, evaluation: Evaluation, verdicts: Mapping[str, Verdicts]) -> None:
    """Write everything for people and for other tools."""
    steps.write_records(job.training, found, evaluation, verdicts, job.staged)
    steps.write_report(job.training, found, evaluation, verdicts, job.staged)


@step
def publish(label: str, job: Job, results: Results, run_id: str | None) -> Registration:
    """Send the results to MLflow, the model to its registry."""
    job.tracker.finish(results)
    reevaluate = steps.reevaluation(job.training, watch=partial(job.attacked, "the champion by this protocol"))
    return register(
        job.workspace, results, data=lambda _: job.training.dataset, reevaluate=reevaluate, flow_run_id=run_id
    )


class _Tasks:
    """A runner by Prefect: the units of a round as tasks side by side, then one that mixes."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def advance(self, round_: Round, positions: Positions) -> Cuts:
        """Train every unit to the end of a round."""
        job = self._job
        units: list[PrefectFuture[Cuts]] = [
            advance.submit(_title(round_, unit, job.config), job, round_, unit, positions) for unit in round_.units
        ]
        cuts: Cuts = {}
        try:
            for unit in units:
                cuts |= unit.result()
        except Lost:
            wait(units)  # whoever starts over should not train beside them
            raise
        return cuts

    def mix(self, round_: Round, cuts: Cuts) -> RoundEnd:
        """End a round."""
        return mix(f"mix round {round_.index} (epoch {round_.stop})", self._job, round_, cuts)


class _Here:
    """Who follows the flow in this process, and how it failed, if it did.

    A flow's own parameters and result must be plain values.
    """

    def __init__(self, watch: Watch, *, trusted: bool) -> None:
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
        return Path(given) if self.trusted else boundary.check_below(Path(given), workspace)


_here: ContextVar[_Here | None] = ContextVar("here", default=None)


def _present() -> _Here:
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
    here = _present()
    end_in_time(partial(flow_runs.stopped, UUID(flow_run.id)))
    try:
        workspace = Workspace.find()
        flow_runs.begin(workspace, UUID(flow_run.id))
        config = boundary.configuration(
            workspace, params=params, preset=preset, overrides=overrides, trusted=here.trusted
        )
        target = Results(here.folder(outputs, workspace))
        check_target(target, workspace)
        flow_runs.rename(UUID(flow_run.id), run_name(config))
        with writing(target, workspace) as staged, flow_runs.untagged():
            return _run(config, workspace, staged, target, here.watch)
    except BadInput as error:
        here.failed(error)
        return Failed(message=str(error), data=error)  # the sentence alone, where raising would show a traceback
    except BaseException as error:
        here.failed(error)
        raise


def run(
    *, watch: Watch, params: Path | None = None, preset: str | None = None, overrides: list[str], outputs: Path
) -> dict[str, str]:
    """Run the flow in this process with somebody watching.

    Raises:
        BadInput: something a user can mend.
    """
    here = _Here(watch, trusted=True)
    token = _here.set(here)
    try:
        with flow_runs.announced(Workspace.find()):
            state = generalist_flow(
                preset=preset,
                overrides=overrides,
                params=None if params is None else str(params),
                outputs=str(outputs),
                return_state=True,
            )
        if isinstance(here.failure, BadInput):
            raise here.failure
        result = state.result()
        assert not isinstance(result, State)  # Prefect puts the state that a flow returns in place of its own
        return result
    except Exception:
        if here.failure is not None:  # Prefect may have failed to tell of it, too
            raise here.failure from here.failure.__cause__
        raise
    finally:
        here.close()
        _here.reset(token)


def _run(config: Config, workspace: Workspace, staged: Results, target: Results, watch: Watch) -> dict[str, str]:
    training = prepare(f"prepare {config.data.name}", config, workspace)
    watch.say(f"on {engine.told(config.training.device)}")
    config = training.config  # whose device is settled
    tracker = start(workspace, config, training.dataset)
    try:
        job = Job(config, workspace, training, staged, tracker, watch)
        with runner(training, job.facts) as job.runner:
            found = drive(training, _Tasks(job), job.facts, tell=watch.say)
        evaluation, verdicts = _evaluate(job, found)
        export("export ONNX", job, found, evaluation, verdicts)
        report("write report", job, found, evaluation, verdicts)
        put_down(staged, target)
        registration = publish("register", job, target, flow_run.id)
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


def _title(round_: Round, unit: tuple[str, ...], config: Config) -> str:
    """Return words such as `warm up robust`, later `train robust, epochs 26 to 27`."""
    who = " and ".join(unit)
    if config.mixing is not None and round_.stop <= config.mixing.warm_up:
        return f"warm up {who}"
    return f"train {who}, epochs {round_.start + 1} to {round_.stop}"


def _evaluate(job: Job, found: Outcome) -> tuple[Evaluation, dict[str, Verdicts]]:
    since = time.perf_counter()
    attack, shards = job.config.evaluation.attack, steps.shards(job.training)
    n = shards[-1].stop
    job.watch.say(f"evaluating {', '.join(found.learners)} on the test split ({n} images): PGD, then {attack}")
    tasks = {
        name: evaluate.map(
            [_share(name, attack, rows, shards) for rows in shards],
            job=unmapped(job),
            found=unmapped(found),
            name=unmapped(name),
            rows=shards,
        )
        for name in found.learners
    }
    verdicts = {name: steps.evaluated(job.training, found, name, own.result()) for name, own in tasks.items()}
    evaluation = steps.gathered(job.training, found, verdicts, since=since)
    artifacts.final(evaluation)
    return evaluation, verdicts


def _share(name: str, attack: str, rows: range, shards: list[range]) -> str:
    """Return words such as `evaluate robust (standard)`, or `evaluate robust (standard), images 0 to 255`."""
    return f"evaluate {name} ({attack})" + (f", {_images(rows)}" if len(shards) > 1 else "")


def _images(rows: range) -> str:
    return f"images {rows.start} to {rows.stop - 1}"
