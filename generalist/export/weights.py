"""Weights that tell which network they are of, so that the file alone makes a classifier."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from generalist import engine
from generalist.config import ModelOptions, canonical
from generalist.config.section import plugin
from generalist.errors import BadInput
from generalist.models import Classifier
from generalist.store import read_tensors, write_tensors
from generalist.tensors import ImageShape, Weights

_MEND = "name a global.safetensors that a training wrote"


def write_weights(path: Path, weights: Weights, *, model: ModelOptions, shape: ImageShape, data: str) -> None:
    """Write weights with the network's options, its image shape and the digest of the data.

    Raises:
        BadInput: the file can't be written.
    """
    write_tensors(path, weights, {"data": data, "shape": asdict(shape), "model": canonical(model)})


def shape_of(facts: Mapping[str, Any]) -> ImageShape:
    """The image shape among the facts of such a file."""
    shape = facts["shape"]
    return ImageShape(**{**shape, "mean": tuple(shape["mean"]), "std": tuple(shape["std"])})


def read_classifier(path: Path, *, on: torch.device) -> Classifier:
    """The classifier of a file, in eval mode.

    Raises:
        BadInput: the file is missing, damaged or of another kind, or its network is not known here.
    """
    stored = read_tensors(path, mend=_MEND)
    try:
        return engine.model_with(plugin("models", stored.facts["model"]), shape_of(stored.facts), stored.tensors, on=on)
    except (KeyError, TypeError, ValidationError, RuntimeError):
        raise BadInput(f"{path} does not tell which network its weights are of: {_MEND}") from None
