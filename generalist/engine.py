"""How things are computed: device, threads, initial weights, the network that attacks see."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from generalist.config import ModelOptions
from generalist.errors import BadInput
from generalist.models import Classifier, build, initialise
from generalist.randomness import generator
from generalist.tensors import ImageShape, Weights


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run a block with `count` intra-op threads: their number decides the bits of a result.

    torch keeps the number for each Python thread that sets it, so whoever runs in one must enter this block.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        BadInput: this machine has no such device.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise BadInput("training.device is cuda, but torch sees no CUDA device here: set training.device to cpu")
    return torch.device(name)


def initial_weights(options: ModelOptions, shape: ImageShape, seed: int) -> Weights:
    """The common initial state of all experts: the same for every expert, device and thread."""
    model = build(options, shape)
    initialise(model, generator(seed, "init"))
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def model_with(options: ModelOptions, shape: ImageShape, weights: Weights, *, on: torch.device) -> Classifier:
    """A network in eval mode with copies of the given weights."""
    model = build(options, shape)
    model.load_state_dict(weights)
    return model.to(on).eval()


def attack_network(model: Classifier) -> Classifier:
    """The same weights as `model`, in eval mode and without gradients of their own.

    It shares the storage of every parameter and buffer, so it follows each optimizer step and needs
    no switching of modes; gradients are then computed with respect to the images alone.
    """
    shadow = copy.deepcopy(model)
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    for name, module in shadow.named_modules():
        prefix = f"{name}." if name else ""
        for key, parameter in module.named_parameters(recurse=False):
            parameter.requires_grad_(False)
            parameter.data = tensors[prefix + key].data
        for key, _ in module.named_buffers(recurse=False):
            setattr(module, key, tensors[prefix + key])
    return shadow.eval()
