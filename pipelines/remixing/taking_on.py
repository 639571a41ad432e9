"""From a mixture to a registered model."""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from generalist.data.array_files import Unreadable, read_npz
from generalist.evaluation import Verdicts, protocol
from generalist.records import History, RoundRecord
from generalist.store import tensors_digest
from generalist.tensors import Weights
from generalist.training import Outcome
from pipelines import steps
from pipelines.manifest import put_down, writing
from pipelines.registry import Registration, register
from pipelines.remixing.looking import Look, words
from pipelines.results import Results, check_target
from pipelines.tracking import start
from pipelines.workspace import Workspace


def take_on(workspace: Workspace, found: Look, target: Results, *, command: str) -> Registration:
    """Evaluate the best mixture on the test split, export it, and pass it through the gates.

    Args:
        workspace: whose MLflow.
        found: what was looked at.
        target: where the results go.
        command: what does all this, for the report.

    Raises:
        BadInput: something that a user can mend.
    """
    training = found.training
    check_target(target, workspace)
    weights, factors = found.weights, words(found.best.factors)
    outcome = _outcome(found, weights)
    tags = {"remixed": factors, "remixed_from": found.run.read_evaluation().chosen.digest}
    with writing(target, workspace) as staged:
        tracker = start(workspace, training.config, training.dataset, tags=tags)
        try:
            tracker.tag({"mlflow.runName": f"{tracker.name} · remixed: {factors}"})
            tracker.log(outcome.chosen)
            since = time.perf_counter()
            verdicts = _verdicts(found, outcome)
            evaluation = steps.gathered(training, outcome, verdicts, since=since)
            adversarial = verdicts[evaluation.deployed].adversarial
            steps.export_model(training, weights, evaluation, adversarial, staged)
            steps.write_records(training, outcome, evaluation, verdicts, staged)
            commands = {"this mixture of its experts": command}
            steps.write_report(training, outcome, evaluation, adversarial, staged, commands=commands)
            put_down(staged, target)
            tracker.finish(target, also=[target.remix])
            return register(workspace, target, data=lambda _: training.dataset, reevaluate=steps.reevaluation(training))
        except BaseException:
            tracker.fail()
            raise


def _outcome(found: Look, weights: Weights) -> Outcome:
    """Return the training's own outcome, with one candidate more, which is chosen."""
    run = found.run
    history, before = run.read(History, run.history), run.read_evaluation()
    chosen = RoundRecord(
        round=len(history.rounds),
        epoch=before.chosen.epoch,
        weights=found.best.factors,
        handed_back=False,
        validation=found.by_choice(found.best),
        digest=tensors_digest(weights),
    )
    history = history.model_copy(update={"rounds": (*history.rounds, chosen)})
    return Outcome(history, chosen, {**found.training.learners(found.last), "global": weights})


def _verdicts(found: Look, outcome: Outcome) -> dict[str, Verdicts]:
    """Return every learner's verdicts; what the training's evaluation tells of its experts is not found out again."""
    training, verdicts = found.training, {}
    for name, weights in outcome.learners.items():
        known = None if name == "global" else _known(found, name, weights)
        if known is None:
            parts = [steps.evaluate_shard(training, outcome.learners, name, rows) for rows in steps.shards(training)]
            known = steps.evaluated(training, outcome, name, parts)
        verdicts[name] = known
    return verdicts


def _known(found: Look, name: str, weights: Weights) -> Verdicts | None:
    """Return an expert's verdicts among the training's results, if they were found by the same protocol."""
    before, training = found.run.read_evaluation(), found.training
    evaluation = before.learners.get(name)
    if evaluation is None or evaluation.digest != tensors_digest(weights):
        return None
    if before.protocol != protocol(training.config, training.dataset):
        return None
    try:
        kept = read_npz(found.run.verdicts, ("label",), prefix=f"{name}/")
    except (FileNotFoundError, Unreadable):
        return None
    if {array.shape for array in kept.values()} != {(evaluation.natural.n,)}:
        return None
    arrays: dict[str, NDArray[Any]] = kept
    return Verdicts(evaluation, arrays, np.zeros((0, 0, 0, 0), dtype=np.float32))
