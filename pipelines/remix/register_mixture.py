"""From a mixture to a registered model."""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from generalist.data.array_files import UnreadableArray, read_npz
from generalist.evaluation import Verdicts, learner_names, protocol
from generalist.records import History, RoundRecord, base_name
from generalist.store import tensors_digest
from generalist.tensors import Weights
from generalist.training import Outcome
from pipelines import steps
from pipelines.registry import Registration, register
from pipelines.remix.sweep import RemixSweep, words
from pipelines.results import Results, check_target
from pipelines.results_manifest import move_into_place, writing
from pipelines.tracking import start
from pipelines.workspace import Workspace


def register_mixture(workspace: Workspace, sweep: RemixSweep, target: Results, *, command: str) -> Registration:
    """Evaluate the best mixture on the test split, export it, and pass it through the gates.

    Args:
        workspace: whose MLflow.
        sweep: what was looked at.
        target: where the results go.
        command: what does all this, for the report.

    Raises:
        BadInput: something that a user can mend.
    """
    training = sweep.training
    check_target(target, workspace)
    weights, factors = sweep.weights, words(sweep.best.factors)
    outcome = _outcome(sweep, weights)
    tags = {"remixed": factors, "remixed_from": sweep.run.read_evaluation().chosen.digest}
    with writing(target, workspace) as staged:
        tracker = start(workspace, training.config, training.dataset, tags=tags)
        try:
            tracker.tag({"mlflow.runName": f"{tracker.name} · remixed: {factors}"})
            tracker.log(outcome.chosen)
            since = time.perf_counter()
            verdicts = _verdicts(sweep, outcome)
            evaluation = steps.build_evaluation(training, outcome, verdicts, since=since)
            adversarial = verdicts[evaluation.deployed].adversarial
            steps.export_model(training, weights, evaluation, adversarial, staged)
            steps.write_records(training, outcome, evaluation, verdicts, staged)
            commands = {"this mixture of its experts": command}
            steps.write_report(training, outcome, evaluation, adversarial, staged, commands=commands)
            move_into_place(staged, target)
            tracker.finish(target, also=[target.remix])
            return register(workspace, target, data=lambda _: training.dataset, reevaluate=steps.reevaluation(training))
        except BaseException:
            tracker.fail()
            raise


def _outcome(sweep: RemixSweep, weights: Weights) -> Outcome:
    """Return the training's own outcome, with one candidate more, which is chosen."""
    run = sweep.run
    history, before = run.read(History, run.history), run.read_evaluation()
    chosen = RoundRecord(
        round=len(history.rounds),
        epoch=before.chosen.epoch,
        weights=sweep.best.factors,
        handed_back=False,
        validation=sweep.by_choice(sweep.best),
        digest=tensors_digest(weights),
    )
    history = history.model_copy(update={"rounds": (*history.rounds, chosen)})
    return Outcome(history, chosen, {**sweep.training.learners(sweep.last), "global": weights})


def _verdicts(sweep: RemixSweep, outcome: Outcome) -> dict[str, Verdicts]:
    """Return every learner's verdicts; what the training's evaluation tells of its experts is not found out again."""
    training, verdicts = sweep.training, {}
    for name in learner_names(outcome.learners, training.config.evaluation):
        base = base_name(name)
        known = None if base == "global" else _stored_verdicts(sweep, name, outcome.learners[base])
        if known is None:
            parts = [steps.evaluate_shard(training, outcome.learners, name, rows) for rows in steps.shards(training)]
            known = steps.combine_shards(training, outcome, name, parts)
        verdicts[name] = known
    return verdicts


def _stored_verdicts(sweep: RemixSweep, name: str, weights: Weights) -> Verdicts | None:
    """Return an expert's verdicts among the training's results, if they were found by the same protocol."""
    before, training = sweep.run.read_evaluation(), sweep.training
    evaluation = before.learners.get(name)
    if evaluation is None or evaluation.digest != tensors_digest(weights):
        return None
    if before.protocol != protocol(training.config, training.dataset):
        return None
    try:
        kept = read_npz(sweep.run.verdicts, ("label",), prefix=f"{name}/")
    except (FileNotFoundError, UnreadableArray):
        return None
    if {array.shape for array in kept.values()} != {(evaluation.natural.n,)}:
        return None
    arrays: dict[str, NDArray[Any]] = kept
    return Verdicts(evaluation, arrays, np.zeros((0, 0, 0, 0), dtype=np.float32))
