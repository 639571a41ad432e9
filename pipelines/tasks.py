"""The tasks of the Prefect flow: they take plain values, so threads, processes or other machines can run them.

Each opens what it needs by the run's specification, and returns with its result what it could not report where it ran.
Prefect sends a task's function by value, with the names that it uses: those are of modules, which are imported there.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import TypeAdapter

from generalist.attacks import AttackProgress
from generalist.config import check
from generalist.data.array_files import map_npy
from generalist.errors import BadInput
from generalist.evaluation import Shard
from generalist.export import Parity
from generalist.records import History
from generalist.training import CheckpointRef, Cuts, Fact, Outcome, RoundEnd
from pipelines import run_context, steps
from pipelines.registry import Registration, register
from pipelines.results import Results
from pipelines.run_context import Plain, RunSpec


def _worth_retrying(_task: Any, _run: Any, state: Any) -> bool:
    """Retry all but wrong input, which stays wrong: it may have been the machine, and work goes on from the store."""
    try:
        state.result()
    except BadInput:
        return False
    except Exception:  # noqa: BLE001  any other failure
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
def prepare(label: str, spec: RunSpec) -> str:
    """Verify prepared data, and return their folder."""
    folder = str(steps.prepare_data(check(spec["config"]), run_context.workspace_of(spec)))
    run_context.open_training({**spec, "data": folder})
    return folder


@step
def advance(label: str, spec: RunSpec, round_: int, group: list[str], positions: Plain) -> tuple[Cuts, list[Fact]]:
    """Train one group of experts to the end of a round."""
    facts: list[Fact] = []
    runner = run_context.runner_here(spec, facts.append)
    checkpoints = TypeAdapter(dict[str, CheckpointRef]).validate_python(positions)
    return runner.advance_group(runner.training.rounds[round_], tuple(group), checkpoints), facts


@step
def mix(label: str, spec: RunSpec, round_: int, cuts: Plain) -> tuple[RoundEnd, list[Fact]]:
    """End a round: measure the global learner, redistribute it."""
    facts: list[Fact] = []
    runner = run_context.runner_here(spec, facts.append)
    checkpoints = TypeAdapter(dict[str, tuple[CheckpointRef, ...]]).validate_python(cuts)
    return runner.mix(runner.training.rounds[round_], checkpoints), facts


@step
def evaluate(
    label: str, spec: RunSpec, end: Plain, name: str, shard: int
) -> tuple[Shard, list[tuple[str, str, AttackProgress]]]:
    """Evaluate one learner on the test split, or on a shard of it."""
    training, reports = run_context.open_training(spec), dict[tuple[str, str], AttackProgress]()
    shards = steps.shards(training)
    learner = name if len(shards) == 1 else f"{name}, {images(shards[shard])}"

    def keep(threat: str, standing: AttackProgress) -> None:
        reports[threat, standing.attack] = standing  # the last is how it ended

    job = run_context.job_here(spec)
    watch = keep if job is None else partial(job.attacked, learner)
    verdicts = steps.evaluate_shard(training, run_context.learners_of(spec, end), name, shards[shard], watch=watch)
    return verdicts, [(learner, threat, standing) for (threat, _), standing in reports.items()]


@step
def export(label: str, spec: RunSpec, end: Plain) -> Parity:
    """Write the ONNX file, and compare it with torch."""
    training, staged = run_context.open_training(spec), Results(Path(spec["staged"]))
    weights = run_context.learners_of(spec, end)[training.config.deployed]
    adversarial = np.array(map_npy(staged.adversarial))
    return steps.export_model(training, weights, staged.read_evaluation(), adversarial, staged)


@step
def report(label: str, spec: RunSpec, end: Plain) -> None:
    """Write the report for people."""
    training, staged = run_context.open_training(spec), Results(Path(spec["staged"]))
    evaluation, adversarial = staged.read_evaluation(), np.array(map_npy(staged.adversarial))
    outcome = Outcome(History.read(staged.history), evaluation.chosen, run_context.learners_of(spec, end))
    steps.write_report(training, outcome, evaluation, adversarial, staged)


@step
def publish(label: str, spec: RunSpec, outputs: str) -> Registration:
    """Send the model to MLflow's registry."""
    training, job = run_context.open_training(spec), run_context.job_here(spec)
    watch = None if job is None else partial(job.attacked, "the champion by this protocol")
    return register(
        run_context.workspace_of(spec),
        Results(Path(outputs)),
        data=lambda _: training.dataset,
        reevaluate=steps.reevaluation(training, watch=watch),
        flow_run_id=spec["id"],
    )


def images(rows: range) -> str:
    """Return words such as `images 0 to 255`."""
    return f"images {rows.start} to {rows.stop - 1}"
