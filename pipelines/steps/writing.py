"""What is written of an evaluated training: the exported model, the records for other tools, the report for people."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from generalist import engine
from generalist.atomic_files import write_atomically
from generalist.config import params_digest, to_yaml
from generalist.evaluation import Verdicts, as_evaluated, evaluated_positions, points, subset
from generalist.export import Lineage, Parity, check_parity, export, width_file, write_weights
from generalist.models import at_width
from generalist.records import AT, Evaluation
from generalist.report import Gallery, build, write_curves
from generalist.tensors import Weights, to_unit
from generalist.training import Outcome, Trainer
from pipelines.early_imports import uncollected
from pipelines.results import Results, metrics_json, verdicts_npz
from pipelines.steps.evaluating import model_of
from pipelines.workspace import code_version

GALLERY = 12
"""Images in the report's gallery."""
_COMMANDS = {
    "this training": "generalist train --params outputs/params.yaml",
    "everything, where it is stale": "dvc repro",
    "the origin of the model": "generalist trace outputs/model.onnx",
}


def export_model(
    training: Trainer, weights: Weights, evaluation: Evaluation, adversarial: NDArray[np.float32], results: Results
) -> Parity:
    """Write the ONNX file with its lineage, the weights beside it, and compare both on the evaluated test images.

    Of a slimmable network, each further width that is evaluated has a file of its own beside it.

    Args:
        training: what was trained.
        weights: the deployed learner's.
        evaluation: what goes into the lineage.
        adversarial: float32 [n, C, H, W], attacked test images.
        results: where to.

    Raises:
        BadInput: the files can't be written.
    """
    config, dataset = training.config, training.dataset
    network, code, parities = model_of(training, weights), code_version(), dict[str, Parity]()
    headline, *further = points(config.evaluation)
    for point in (headline, *(point for point in further if point.condition == headline.condition)):
        name = evaluation.deployed if point == headline else f"{evaluation.deployed}{AT}{point}"
        model = network if point.width is None else at_width(network, point.width)
        path = results.onnx if point == headline else width_file(results.onnx, point.width or 1.0)
        lineage = Lineage.of(
            evaluation,
            name=name,
            model=config.model.name,
            class_names=dataset.class_names,
            data_digest=dataset.digest,
            params_digest=params_digest(config),
            git_commit=code.commit,
            dirty=code.dirty,
        )
        with engine.threads(config.training.threads):
            with uncollected():  # torch imports its exporter at the first use
                export(model, path, metadata=lineage.to_metadata(), opset=config.export.opset)
            parities[f"{point.width or 1:g}"] = check_parity(
                model,
                path,
                np.asarray(subset(dataset.test, config.evaluation).images),
                torch.from_numpy(adversarial),
                conditions=tuple(map(float, config.evaluation.conditions)),
                tolerance=float(config.export.tolerance),
                on=config.export.parity,
            )
    parity = parities.pop(f"{headline.width or 1:g}").model_copy(update={"widths": parities})
    write_weights(results.weights, weights, model=config.model, shape=dataset.shape, data=dataset.digest)
    write_atomically(results.parity, (parity.model_dump_json(indent=2) + "\n").encode())
    return parity


def write_records(
    training: Trainer, outcome: Outcome, evaluation: Evaluation, verdicts: Mapping[str, Verdicts], results: Results
) -> None:
    """Write what was recorded: history, evaluation, verdicts, curves, metrics, configuration."""
    arrays: dict[str, NDArray[Any]] = {"index": evaluated_positions(training.dataset.test, training.config.evaluation)}
    for verdict in verdicts.values():
        arrays |= verdict.arrays
    for path, content in (
        (results.history, outcome.history.model_dump_json(indent=1).encode()),
        (results.evaluation, evaluation.model_dump_json(indent=1).encode()),
        (results.verdicts, verdicts_npz(arrays)),
        (results.metrics, metrics_json(evaluation)),
        (results.params, to_yaml(training.config).encode()),
    ):
        write_atomically(path, content)
    write_curves(outcome.history, results.folder)


def write_adversarial(adversarial: NDArray[np.float32], results: Results) -> None:
    """Write the attacked test images of the deployed learner, for those who write the model and the report."""
    content = io.BytesIO()
    np.save(content, adversarial, allow_pickle=False)
    write_atomically(results.adversarial, content.getvalue())


def write_report(
    training: Trainer,
    outcome: Outcome,
    evaluation: Evaluation,
    adversarial: NDArray[np.float32],
    results: Results,
    *,
    commands: Mapping[str, str] | None = None,
) -> None:
    """Write the report for people.

    Args:
        training: what was trained.
        outcome: what came of it.
        evaluation: of all its learners.
        adversarial: float32 [n, C, H, W], attacked test images.
        results: where to.
        commands: come before those that go with every training.

    Raises:
        BadInput: the file can't be written.
    """
    page = build(
        outcome.history,
        evaluation,
        _gallery(training, outcome, adversarial),
        config=training.config,
        commands={**(commands or {}), **_COMMANDS},
        lineage=_lineage(training, outcome, evaluation),
    )
    write_atomically(results.report, page.encode())


def _gallery(training: Trainer, outcome: Outcome, adversarial: NDArray[np.float32]) -> Gallery:
    """Return the first test image of each class, then the second of each, and so on: none is picked by hand."""
    split = subset(training.dataset.test, training.config.evaluation)
    labels = np.asarray(split.labels)
    turn = np.array([np.count_nonzero(labels[:index] == label) for index, label in enumerate(labels)])
    shown = np.lexsort((labels, turn))[:GALLERY]
    clean = to_unit(torch.from_numpy(np.array(split.images[shown])))
    attacked = torch.from_numpy(adversarial[shown])

    def probabilities(weights: Weights) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        model = as_evaluated(model_of(training, weights), training.config.evaluation)
        on = engine.device(training.config.training.device)
        with torch.no_grad(), engine.arithmetic(on):
            both = [model.decision(model(images.to(on))).softmax(1).cpu().numpy() for images in (clean, attacked)]
        return both[0], both[1]

    return Gallery(
        images=clean.numpy(),
        adversarial=attacked.numpy(),
        labels=labels[shown],
        class_names=training.dataset.class_names,
        predictions={name: probabilities(weights) for name, weights in outcome.learners.items()},
    )


def _lineage(training: Trainer, outcome: Outcome, evaluation: Evaluation) -> dict[str, str]:
    code, copies = code_version(), training.dataset.copies
    return {
        "git commit": f"{code.commit or 'none'}{' (changed since)' if code.dirty else ''}",
        "configuration": params_digest(training.config),
        "data": training.dataset.digest,
        "images in two splits": ", ".join(f"{n} {where}" for where, n in copies.items() if n) or "none",
        "weights": outcome.chosen.digest,
        "protocol": evaluation.protocol.digest(),
    }
