"""The evaluation of a training's learners, whole or in shards, and that of an older model by the same protocol."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from generalist import engine
from generalist.atomic_files import write_atomically
from generalist.config import canonical, digest
from generalist.config import load as load_config
from generalist.errors import BadInput
from generalist.evaluation import (
    Shard,
    Verdicts,
    Watch,
    as_evaluated,
    attack_shard,
    evaluate,
    evaluated_positions,
    measure,
    point_of,
    protocol,
    shard_ranges,
    subset,
)
from generalist.evaluation import combine_shards as combine
from generalist.export import shape_of
from generalist.models import Classifier
from generalist.platform_fingerprint import fingerprint
from generalist.records import Evaluation, base_name
from generalist.store import read_tensors, tensors_digest
from generalist.tensors import ImageShape, Weights
from generalist.training import Outcome, Trainer
from pipelines.results import Results, verdicts_npz


def evaluate_shard(
    training: Trainer, learners: Mapping[str, Weights], name: str, rows: range, *, watch: Watch | None = None
) -> Shard:
    """Evaluate one learner, by a name of `learner_names`, on some images of the test split."""
    options, weights = training.config.evaluation, learners[base_name(name)]
    with engine.threads(training.config.training.threads):
        return attack_shard(
            as_evaluated(model_of(training, weights), options, name),
            subset(training.dataset.test, options),
            rows,
            options=options,
            states=_attack_states(training, weights, name),
            watch=watch,
        )


def shards(training: Trainer) -> list[range]:
    """Return the images of each task of an evaluation."""
    options = training.config.evaluation
    return shard_ranges(len(evaluated_positions(training.dataset.test, options)), options.shards)


def combine_shards(training: Trainer, outcome: Outcome, name: str, parts: Sequence[Shard]) -> Verdicts:
    """Return what all shards of a learner come to."""
    config, base = training.config, base_name(name)
    return combine(
        parts,
        options=config.evaluation,
        class_names=training.dataset.class_names,
        name=name,
        epoch=outcome.chosen.epoch if base == config.deployed else config.active(base).stop,
        digest=tensors_digest(outcome.learners[base]),
        at=point_of(name, config.evaluation),
    )


def _attack_states(training: Trainer, weights: Weights, name: str) -> Path:
    """Return where an evaluation that was killed goes on; another way to evaluate has another folder."""
    config = training.config
    numerics = fingerprint(config.training.device, config.training.threads, evaluation=True)
    options = canonical(config.evaluation.model_copy(update={"batch_size": 1}))
    del options["headline"]  # like the size of a batch, it changes no verdict
    asked = protocol(config, training.dataset)
    whole = [tensors_digest(weights), options, asked.test_digest, asked.code, numerics]
    condition, width = point_of(name, config.evaluation)
    whole += [condition] if condition is not None else []
    whole += [["width", width]] if width is not None else []
    return training.store.folder / "attacks" / digest(whole)[:32]


def build_evaluation(
    training: Trainer, outcome: Outcome, verdicts: Mapping[str, Verdicts], *, since: float
) -> Evaluation:
    """Return the evaluation of all learners; `since` is the `time.perf_counter` at which it began."""
    config, asked = training.config, protocol(training.config, training.dataset)
    return Evaluation(
        protocol=asked,
        deployed=config.deployed,
        chosen=outcome.chosen,
        criterion=config.registry.criterion,
        learners={name: verdict.evaluation for name, verdict in verdicts.items()},
        numerics=fingerprint(config.training.device, config.training.threads, evaluation=True) | {"code": asked.code},
        seconds=round(time.perf_counter() - since, 1),
    )


def reevaluation(training: Trainer, *, watch: Watch | None = None) -> Callable[[Results], Results]:
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
            network = engine.model_with(config.model, shape, stored.tensors, on=on)
            model = as_evaluated(network, config.evaluation)
            validation = measure(
                model, dataset.validation, threats=options.headline_threats, attack=options.selection_attack
            )
            verdicts = evaluate(
                model,
                subset(dataset.test, options),
                options=options,
                class_names=dataset.class_names,
                name=before.deployed,
                epoch=before.headline.epoch,
                digest=before.headline.digest,
                at=before.headline.at,
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


def model_of(training: Trainer, weights: Weights) -> Classifier:
    """Return a training's network with these weights, on its device."""
    config = training.config
    return engine.model_with(config.model, training.dataset.shape, weights, on=engine.device(config.training.device))
