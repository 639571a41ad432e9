"""Weights that tell which network they are of, so that the file alone makes a classifier."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from generalist import engine
from generalist.config import ModelOptions, canonical
from generalist.config.section import plugin
from generalist.ensemble import build_for
from generalist.errors import BadInput
from generalist.models import Classifier
from generalist.store import read_tensors, write_tensors
from generalist.store.files import refuse_foreign
from generalist.tensors import ImageShape, Weights

_MEND = "name a global.safetensors that a training wrote"
_OTHERS = "; any other network is attacked as an ONNX file (.onnx)"
_LARGEST = 2**16  # of a size


def write_weights(path: Path, weights: Weights, *, model: ModelOptions, shape: ImageShape, data: str) -> None:
    """Write weights with the network's options, its image shape and the digest of the data.

    Raises:
        BadInput: the file can't be written.
    """
    write_tensors(path, weights, {"data": data, "shape": asdict(shape), "model": canonical(model)})


def shape_of(facts: Mapping[str, Any], path: Path) -> ImageShape:
    """Return the image shape among the facts of such a file, which `path` names.

    Raises:
        BadInput: there is none.
    """
    try:
        shape = facts["shape"]
        return _checked(ImageShape(**{**shape, "mean": tuple(shape["mean"]), "std": tuple(shape["std"])}))
    except (LookupError, TypeError, ValueError):
        raise BadInput(f"{path} does not tell which images its weights are for: {_MEND}") from None


def read_classifier(path: Path, *, on: torch.device) -> Classifier:
    """Return the classifier of a file, in eval mode.

    Raises:
        BadInput: the file is missing, damaged or of another kind, or its network is not known here.
    """
    refuse_foreign(path, mend=_MEND, others=_OTHERS)
    try:
        stored = read_tensors(path, mend=_MEND)
        options, shape = plugin("models", stored.facts["model"]), shape_of(stored.facts, path)
        with torch.device("meta"):  # no memory is taken for a network of other sizes than the weights
            network = build_for(options, shape, stored.tensors)
            expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
        if expected != {name: tensor.shape for name, tensor in stored.tensors.items()}:
            raise KeyError
        return engine.model_with(options, shape, stored.tensors, on=on)
    except BadInput:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError, RuntimeError, MemoryError):
        raise BadInput(f"{path} does not tell which network its weights are of: {_MEND}") from None


def _checked(shape: ImageShape) -> ImageShape:
    """Return the shape, if it is one of images.

    Raises:
        ValueError: it is not.
    """
    sizes = (shape.channels, shape.height, shape.width, shape.classes)
    numbers = (*shape.mean, *shape.std)
    if not all(type(size) is int and 0 < size <= _LARGEST for size in sizes):
        raise ValueError(f"sizes {sizes}")
    if len(shape.mean) != shape.channels or len(shape.std) != shape.channels or not all(map(math.isfinite, numbers)):
        raise ValueError(f"mean and std {numbers}")
    if min(shape.std) <= 0:
        raise ValueError(f"std {shape.std}")
    return shape
