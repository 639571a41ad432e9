"""Natural accuracy and AutoAttack of trained weights, as figures of a part that may be cut."""

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_bench import Bench, LateError
from generalist import engine
from generalist.attacks import AttackProgress, autoattack
from generalist.config import EvaluationOptions
from generalist.data import Dataset
from generalist.export import read_classifier
from generalist.models import Classifier
from generalist.records import Accuracy
from generalist.tensors import to_unit
from generalist.threats import threat_from
from generalist.untrusted import file_sha256

ATTACKED = 256
"""Test images for AutoAttack."""


def attack(bench: Bench, name: str, weights: Path, options: EvaluationOptions, dataset: Dataset) -> None:
    """Measure natural accuracy on all test images, and AutoAttack on the first ones.

    Args:
        bench: where the figures go.
        name: of the training.
        weights: the file of the network; beside it the attack keeps its state.
        options: threat and queries.
        dataset: whose test split is classified.

    Raises:
        LateError: the attack has more to do.
    """
    model = read_classifier(weights, on=bench.on)
    images, labels = (torch.from_numpy(own.copy()) for own in (dataset.test.images, dataset.test.labels))
    bench.figure(f"{name}: natural accuracy", lambda: _natural(bench, model, images, labels))
    count, version, queries = (32, "quick", 10) if bench.tiny else (ATTACKED, "standard", options.square_queries)
    so_far = f"{name}: seconds of AutoAttack so far"
    kept = weights.with_name(f"attack-{file_sha256(weights)[:16]}.safetensors")
    before, began = bench.part.figures.get(so_far, 0.0) if kept.is_file() else 0.0, time.monotonic()

    def watch(_: AttackProgress) -> None:
        if bench.left < 0:
            bench.part.figures[so_far] = before + time.monotonic() - began
            raise LateError

    def measured() -> dict[str, Any]:
        result = autoattack(
            model,
            to_unit(images[:count].to(bench.on)),
            labels[:count].to(bench.on),
            threat_from(options.threats[0]),
            version=version,
            square_queries=queries,
            precision="tf32",  # of the search; verdicts are float32
            state=kept,
            watch=watch,
        )
        found = {"natural": _figures(result.clean), "robust": _figures(result.robust)}
        return {"version": version, "seconds": before + time.monotonic() - began, "flags": list(result.flags), **found}

    bench.figure(f"{name}: AutoAttack", measured)
    bench.part.figures.pop(so_far, None)


def _natural(bench: Bench, model: Classifier, images: Tensor, labels: Tensor) -> dict[str, Any]:
    """Return the accuracy on uint8 images [n, channels, height, width], which lie on the CPU."""
    with torch.no_grad(), engine.arithmetic(bench.on):
        right = [model(to_unit(some.to(bench.on))).argmax(1).cpu() for some in images.split(1000)]
    return _figures(torch.cat(right) == labels)


def _figures(right: Tensor) -> dict[str, Any]:
    """Return the share of images [n] that are right, with its 95 % interval, as numbers and as text."""
    found = Accuracy(correct=int(right.sum()), n=len(right))
    return found.model_dump(mode="json") | {"text": str(found)}
