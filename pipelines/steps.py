"""The steps of the pipeline that have no framework: data and configuration in, files out.

Training's own steps are `generalist.training.Training`; every door runs the same ones.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from generalist import engine
from generalist.config import Config, canonical, digest, params_digest, to_yaml
from generalist.config import load as load_config
from generalist.data import Dataset, Manifest, changed_since, load, prepare, request_digest
from generalist.data.manifest import MANIFEST
from generalist.errors import BadInput
from generalist.evaluation import (
    Shard,
    Verdicts,
    Watch,
    attack_shard,
    chosen,
    cuts,
    evaluate,
    measure,
    protocol,
    subset,
)
from generalist.evaluation import gathered as gather_shards
from generalist.export import Lineage, Parity, export, parity, shape_of, write_weights
from generalist.numerics import fingerprint
from generalist.records import Evaluation
from generalist.report import Gallery, build, write_curves
from generalist.store import Remote, Store, read_tensors, tensors_digest
from generalist.tensors import ImageShape, Weights, to_unit
from generalist.training import Outcome, Training
from generalist.writing import write_atomically
from pipelines.ahead import uncollected
from pipelines.results import Results, metrics_json, verdicts_npz
from pipelines.workspace import Workspace, code_version

STORE = "GENERALIST_STORE"
"""Environment variable: where the store is."""

GALLERY = 12
"""Images in the report's gallery."""


def prepared(config: Config, workspace: Workspace) -> Path:
    """Return the folder of prepared data for a configuration: DVC's where it fits, else one made beside the store.

    Raises:
        BadInput: the source is missing or damaged, or so is the manifest of what DVC prepared.
    """
    wanted = request_digest(config.data)
    if _request_of(workspace.prepared) == wanted:
        if not changed_since(config.data, workspace.prepared, root=workspace.here):
            return workspace.prepared
        logging.getLogger("generalist").warning(
            "images have changed since %s was made, so they are read anew; `dvc repro` brings it up to date",
            workspace.prepared,
        )
    # Nobody watches these sources for changes, so they are read again: that takes seconds.
    prepare(config.data, workspace.data_cache / wanted, root=workspace.here)
    return workspace.data_cache / wanted


def check_source(config: Config, workspace: Workspace) -> None:
    """Read the source where nothing was ever prepared from it: missing data is told before anything else is made.

    Raises:
        BadInput: the source is missing or damaged.
    """
    wanted = request_digest(config.data)
    if all(_request_of(folder) != wanted for folder in (workspace.prepared, workspace.data_cache / wanted)):
        prepared(config, workspace)


def _request_of(folder: Path) -> str | None:
    """Return what a folder was prepared for; None where nothing was prepared there."""
    return Manifest.read(folder).request_digest if os.path.lexists(folder / MANIFEST) else None


def training(config: Config, workspace: Workspace, *, data: Path | None = None) -> Training:
    """Return the training of a configuration over prepared data, which is checked here, and this workspace's store.

    Raises:
        BadInput: the data changed after it was prepared, or the configured device is not there.
    """
    return Training(config, dataset(config, workspace, data=data), opened_store(workspace), root=workspace.here)


def dataset(config: Config, workspace: Workspace, *, data: Path | None = None) -> Dataset:
    """Return prepared data, read and checked; `data` is its folder where that is known.

    Raises:
        BadInput: the data changed after it was prepared, or the configured device is not there.
    """
    engine.device(config.training.device)
    return load(data or prepared(config, workspace))


def opened_store(workspace: Workspace) -> Store:
    """Return the workspace's store, or what `GENERALIST_STORE` names: a folder, or an address that machines share.

    Raises:
        BadInput: nothing here can open that address.
    """
    named = os.environ.get(STORE, "").strip()
    if not named:
        return Store(workspace.store)
    if "://" in named:
        return Store(workspace.store, Remote(named))
    return Store((workspace.root / Path(named).expanduser()).resolve())


def evaluate_shard(
    training: Training, outcome: Outcome, name: str, rows: range, *, watch: Watch | None = None
) -> Shard:
    """Evaluate one learner on some images of the test split: natural accuracy, PGD, the cascade."""
    config, dataset = training.config, training.dataset
    weights = outcome.learners[name]
    with engine.threads(config.training.threads):
        return attack_shard(
            _model(config, dataset, weights),
            subset(dataset.test, config.evaluation),
            rows,
            options=config.evaluation,
            states=_attack_states(training, weights),
            watch=watch,
        )


def shards(training: Training) -> list[range]:
    """Return the images of each task of an evaluation."""
    options = training.config.evaluation
    return cuts(len(chosen(training.dataset.test, options)), options.shards)


def evaluated(training: Training, outcome: Outcome, name: str, parts: Sequence[Shard]) -> Verdicts:
    """Return what all shards of a learner come to."""
    config = training.config
    return gather_shards(
        parts,
        class_names=training.dataset.class_names,
        name=name,
        epoch=outcome.chosen.epoch if name == _deployed(config) else config.training.epochs,
        digest=tensors_digest(outcome.learners[name]),
    )


def _attack_states(training: Training, weights: Weights) -> Path:
    """Return where an evaluation that was killed goes on; another way to evaluate has another folder."""
    config = training.config
    numerics = fingerprint(config.training.device, config.training.threads, evaluation=True)
    options = config.evaluation.model_copy(update={"batch_size": 1})  # which changes no verdict
    asked = protocol(config, training.dataset)
    whole = [tensors_digest(weights), canonical(options), asked.test_digest, asked.code, numerics]
    return training.store.folder / "attacks" / digest(whole)[:32]


def gathered(training: Training, outcome: Outcome, verdicts: Mapping[str, Verdicts], *, since: float) -> Evaluation:
    """Return the evaluation of all learners; `since` is the `time.perf_counter` at which it began."""
    config, asked = training.config, protocol(training.config, training.dataset)
    return Evaluation(
        protocol=asked,
        deployed=_deployed(config),
        chosen=outcome.chosen,
        criterion=config.registry.criterion,
        learners={name: own.evaluation for name, own in verdicts.items()},
        numerics=fingerprint(config.training.device, config.training.threads, evaluation=True) | {"code": asked.code},
        seconds=round(time.perf_counter() - since, 1),
    )


def export_model(
    training: Training, outcome: Outcome, evaluation: Evaluation, adversarial: NDArray[np.float32], results: Results
) -> Parity:
    """Write the ONNX file with its lineage, the weights beside it, and compare both on the evaluated test images.

    Args:
        training: what was trained.
        outcome: what came of it.
        evaluation: what goes into the lineage.
        adversarial: float32 [n, C, H, W], attacked test images.
        results: where to.

    Raises:
        BadInput: the files can't be written.
    """
    config, dataset = training.config, training.dataset
    weights = outcome.learners[evaluation.deployed]
    model = _model(config, dataset, weights)
    code = code_version()
    lineage = Lineage.of(
        evaluation,
        model=config.model.name,
        class_names=dataset.class_names,
        data_digest=dataset.digest,
        params_digest=params_digest(config),
        git_commit=code.commit,
        dirty=code.dirty,
    )
    with engine.threads(config.training.threads):
        with uncollected():  # torch imports its exporter at the first use
            export(model, results.onnx, metadata=lineage.to_metadata(), opset=config.export.opset)
        found = parity(
            model,
            results.onnx,
            np.asarray(subset(dataset.test, config.evaluation).images),
            torch.from_numpy(adversarial),
            tolerance=float(config.export.tolerance),
            on=config.export.parity,
        )
    write_weights(results.weights, weights, model=config.model, shape=dataset.shape, data=dataset.digest)
    write_atomically(results.parity, (found.model_dump_json(indent=2) + "\n").encode())
    return found


def write_records(
    training: Training, outcome: Outcome, evaluation: Evaluation, verdicts: Mapping[str, Verdicts], results: Results
) -> None:
    """Write what was recorded: history, evaluation, verdicts, curves, metrics, configuration."""
    arrays: dict[str, NDArray[Any]] = {"index": chosen(training.dataset.test, training.config.evaluation)}
    for own in verdicts.values():
        arrays |= own.arrays
    for path, content in (
        (results.history, outcome.history.model_dump_json(indent=1).encode()),
        (results.evaluation, evaluation.model_dump_json(indent=1).encode()),
        (results.verdicts, verdicts_npz(arrays)),
        (results.metrics, metrics_json(evaluation)),
        (results.params, to_yaml(training.config).encode()),
    ):
        write_atomically(path, content)
    write_curves(outcome.history, results.folder)


def write_report(
    training: Training,
    outcome: Outcome,
    evaluation: Evaluation,
    verdicts: Mapping[str, Verdicts],
    results: Results,
    *,
    commands: Mapping[str, str] | None = None,
) -> None:
    """Write the report for people; `commands` come before those that go with every training."""
    config = training.config
    page = build(
        outcome.history,
        evaluation,
        _gallery(training, outcome, verdicts[evaluation.deployed]),
        config=config,
        commands={**(commands or {}), **_commands()},
        lineage=_lineage(training, outcome, evaluation),
    )
    write_atomically(results.report, page.encode())


def reevaluation(training: Training, *, watch: Watch | None = None) -> Callable[[Results], Results]:
    """Return what measures an older model by this training's protocol, on its data: for the gates of the registry."""

    def again(older: Results) -> Results:
        config, dataset = load_config(older.params), training.dataset
        stored = read_tensors(older.weights, mend="promote the new model by hand")
        shape = shape_of(stored.facts, older.weights)
        before = older.read_evaluation()
        names = tuple(before.headline.per_class)
        if names != dataset.class_names or _size(shape) != _size(dataset.shape):
            raise BadInput("its classes or image size are other ones")
        options = training.config.evaluation
        with engine.threads(training.config.training.threads):
            on = engine.device(training.config.training.device)
            model = engine.model_with(config.model, shape, stored.tensors, on=on)
            validation = measure(model, dataset.validation, threat=options.threats[0], attack=options.choice)
            verdicts = evaluate(
                model,
                subset(dataset.test, options),
                options=options,
                class_names=dataset.class_names,
                name=before.deployed,
                epoch=before.headline.epoch,
                digest=before.headline.digest,
                watch=watch,
            )
        evaluation = before.model_copy(
            update={
                "protocol": protocol(training.config, dataset),
                "chosen": before.chosen.model_copy(update={"validation": validation}),
                "learners": {before.deployed: verdicts.evaluation},
            }
        )
        results = Results(older.folder / "again")
        write_atomically(results.evaluation, evaluation.model_dump_json(indent=1).encode())
        write_atomically(results.verdicts, verdicts_npz(verdicts.arrays))
        return results

    return again


def _size(shape: ImageShape) -> tuple[int, int, int]:
    return shape.channels, shape.height, shape.width


def _gallery(training: Training, outcome: Outcome, verdicts: Verdicts) -> Gallery:
    """Return the first test image of each class, then the second of each, and so on: nobody picked them."""
    config, dataset = training.config, training.dataset
    split = subset(dataset.test, config.evaluation)
    labels = np.asarray(split.labels)
    turn = np.array([np.count_nonzero(labels[:index] == label) for index, label in enumerate(labels)])
    shown = np.lexsort((labels, turn))[:GALLERY]
    clean = to_unit(torch.from_numpy(np.array(split.images[shown])))
    attacked = torch.from_numpy(verdicts.adversarial[shown])

    def probabilities(weights: Weights) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        model, on = _model(config, dataset, weights), engine.device(config.training.device)
        with torch.no_grad(), engine.arithmetic(on):
            both = [model.decision(model(images.to(on))).softmax(1).cpu().numpy() for images in (clean, attacked)]
        return both[0], both[1]

    return Gallery(
        images=clean.numpy(),
        adversarial=attacked.numpy(),
        labels=labels[shown],
        class_names=dataset.class_names,
        predictions={name: probabilities(weights) for name, weights in outcome.learners.items()},
    )


def _commands() -> dict[str, str]:
    return {
        "this training": "generalist train --params outputs/params.yaml",
        "everything, where it is stale": "dvc repro",
        "the origin of the model": "generalist trace outputs/model.onnx",
    }


def _lineage(training: Training, outcome: Outcome, evaluation: Evaluation) -> dict[str, str]:
    code, copies = code_version(), training.dataset.copies
    return {
        "git commit": f"{code.commit or 'none'}{' (changed since)' if code.dirty else ''}",
        "configuration": params_digest(training.config),
        "data": training.dataset.digest,
        "images in two splits": ", ".join(f"{n} {where}" for where, n in copies.items() if n) or "none",
        "weights": outcome.chosen.digest,
        "protocol": evaluation.protocol.digest(),
    }


def _deployed(config: Config) -> str:
    return config.deploy.removeprefix("expert:")


def _model(config: Config, dataset: Dataset, weights: Weights) -> Any:
    return engine.model_with(config.model, dataset.shape, weights, on=engine.device(config.training.device))
