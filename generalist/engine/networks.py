"""Networks with weights: the common initial ones, or given ones."""

import torch

from generalist.config import ModelOptions
from generalist.engine.frozen_network import memory_format
from generalist.models import Classifier, build, initialise
from generalist.randomness import generator
from generalist.tensors import ImageShape, Weights


def initial_weights(options: ModelOptions, shape: ImageShape, seed: int) -> Weights:
    """Return the common initial state of all experts: the same for every expert, device and thread."""
    model = build(options, shape)
    initialise(model, generator(seed, "init"))
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def model_with(options: ModelOptions, shape: ImageShape, weights: Weights, *, on: torch.device) -> Classifier:
    """Return a network in eval mode with copies of the given weights."""
    model = build(options, shape)
    model.load_state_dict(weights)
    model.to(memory_format=memory_format(model))  # type: ignore[call-overload]  # stubs lack it
    return model.to(on).eval()
