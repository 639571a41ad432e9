"""Whether results are what their ONNX file says: its seals, its lineage, and what it predicts. No MLflow here."""

import numpy as np

from generalist.config import Config, params_digest
from generalist.data import Dataset
from generalist.errors import BadInput
from generalist.evaluation import evaluated_positions
from generalist.export import Lineage, verify
from generalist.export.runtime import LIMIT, TILE, Runtime
from generalist.store import read_tensors, tensors_digest
from pipelines.registry.gates import Evidence
from pipelines.results import Results

MOST_TIES = 0.01
"""Share of images that may be predicted otherwise, each within a tie, as other processors round differently."""


def check(results: Results, config: Config, dataset: Dataset) -> None:
    """Refuse results whose ONNX file was not made of the files beside it, or predicts something else than they say.

    Args:
        results: whole ones.
        config: theirs.
        dataset: what the model was evaluated on.

    Raises:
        BadInput: the file's seals are broken, or it does not answer in time; its lineage is not that of the evaluation,
            configuration, weights and data at hand; or its predictions on the test images are not those among the
            verdicts.
    """
    # Before anything else looks at the graph: it is tried in a process of its own.
    threads, on = config.training.threads, config.export.parity
    condition = float(config.evaluation.conditions[0]) if config.evaluation.conditions else None
    runtime = Runtime(results.onnx, threads=threads, foreign=True, on=on, limit=LIMIT, condition=condition)
    lineage, evidence = Lineage.from_metadata(verify(results.onnx)), Evidence.read(results)
    _check_lineage(results, lineage, evidence, config, dataset)
    _check_predictions(results, runtime, evidence, config, dataset)


def _check_lineage(results: Results, lineage: Lineage, evidence: Evidence, config: Config, dataset: Dataset) -> None:
    expected = Lineage.of(
        evidence.evaluation,
        model=config.model.name,
        class_names=dataset.class_names,
        data_digest=dataset.digest,
        params_digest=params_digest(config),
        git_commit=lineage.git_commit,
        dirty=lineage.dirty,
    )
    differing = [name for name, value in expected if value != getattr(lineage, name)]
    if differing:
        raise BadInput(
            f"{results.onnx} was not made of the evaluation, configuration and data at hand (its"
            f" {', '.join(differing)} is another): {_MEND}"
        )
    if evidence.evaluation.protocol.test_digest != dataset.test_digest:
        raise BadInput(f"{results.evaluation} is not of the test images at hand: {_MEND}")
    weights = read_tensors(results.weights, mend=_MEND)
    if tensors_digest(weights.tensors) != lineage.weights_digest:
        raise BadInput(f"{results.weights} holds other weights than {results.onnx.name} was made of: {_MEND}")


def _check_predictions(
    results: Results, runtime: Runtime, evidence: Evidence, config: Config, dataset: Dataset
) -> None:
    """Check that predictions are those of the verdicts, but for a few within ties.

    Parity lets each logit be off by the tolerance, so two of them by twice as much.
    """
    rows = evaluated_positions(dataset.test, config.evaluation)
    said = evidence.predictions
    if not np.array_equal(dataset.test.labels[rows], evidence.labels) or said.max(initial=0) >= runtime.classes:
        raise BadInput(f"{results.verdicts} is not of the test images at hand: {_MEND}")
    wrong = ties = 0
    for start in range(0, len(rows), TILE):
        part = slice(start, start + TILE)
        logits = runtime(dataset.test.images[rows[part]].astype(np.float32) / np.float32(255))
        allowed = 2 * float(config.export.tolerance) * max(1.0, float(np.abs(logits).max()))
        missing = logits.max(axis=1) - logits[np.arange(len(logits)), said[part]]
        wrong += int((missing > allowed).sum())
        ties += int(((logits.argmax(axis=1) != said[part]) & (missing <= allowed)).sum())
    if wrong or ties > max(1, MOST_TIES * len(rows)):
        raise BadInput(
            f"{results.onnx} predicts another class than {results.verdicts.name} says for {wrong + ties} of"
            f" {len(rows)} test images, so it is not the model that was evaluated: {_MEND}"
        )


_MEND = "make the results again with `dvc repro`, or `generalist train`"
