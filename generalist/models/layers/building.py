"""From options to a network without weights, and its initial weights."""

import math
import os
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from torch import nn

from generalist.config import ModelOptions
from generalist.errors import BadInput
from generalist.models.contract import Architecture, Classifier, Encoding
from generalist.models.layers.slimmable import NarrowNorms
from generalist.tensors import ImageShape

Made = TypeVar("Made")
_INITIALISED = (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d)
_BUILDING = threading.Lock()  # the block `with torch.device` moves a global of torch


def unfilled(make: Callable[[], Made]) -> Made:
    """Return a module on the meta device: its constructor draws no numbers and takes no memory."""
    with _BUILDING, torch.device("meta"):
        return make()


def outline(options: ModelOptions, shape: ImageShape) -> Classifier:
    """Return the network that the configuration names on the meta device: its layers and shapes, without memory.

    Raises:
        BadInput: the architecture can't take images of this shape, or the condition that it is given.
    """
    if not isinstance(options, Architecture):
        raise TypeError(f"{type(options).__name__} is not an architecture")
    model = unfilled(partial(_of_all_widths, options, shape))
    if options.condition is not None and model.encoding is None:
        raise BadInput(f"model.condition is given, but the network {options.name} takes no condition: set it to null")
    return model


def build(options: ModelOptions, shape: ImageShape) -> Classifier:
    """Return the network that the configuration names, on the CPU, without weights yet.

    Every parameter and buffer is NaN (zero where it counts) until `initialise` or `load_state_dict` fills
    it: constructors draw initial weights from torch's global generator, so they run where nothing is drawn.

    Raises:
        BadInput: like `outline`, or the network is larger than this machine's memory.
    """
    model = outline(options, shape)
    _check_memory(model, options.name)
    constants = {name: buffer for name, buffer in model.named_buffers() if not buffer.is_meta}
    model.to_empty(device="cpu")
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if name in constants:
                tensor.copy_(constants[name])
            else:
                tensor.fill_(math.nan if tensor.is_floating_point() else 0)
    return model


def _of_all_widths(options: Architecture, shape: ImageShape) -> Classifier:
    model = options.build(shape)
    if options.widths:
        narrower = {float(share): options.narrowed(float(share)).build(shape) for share in options.widths[:-1]}
        model.narrow_norms = NarrowNorms(narrower)
    return model


def _check_memory(model: Classifier, name: str) -> None:
    """Check that memory suffices, before a network on the meta device is given it."""
    needed = sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        raise BadInput(
            f"a {name} of these options needs {needed / 2**30:,.0f} GiB for its weights, and this machine has"
            f" {memory / 2**30:,.0f} GiB: choose a smaller one"
        )


def initialise(model: nn.Module, generator: torch.Generator) -> None:
    """Fill all parameters and buffers as torch's own constructors would, with numbers from `generator`.

    Weights and biases of convolutions and linear layers are uniform in ±1/sqrt(fan-in), which is what
    kaiming_uniform_(a=sqrt(5)) comes to; BatchNorms start as the identity.

    Args:
        model: on the generator's device.
        generator: the only source of randomness.

    Raises:
        TypeError: a parameter or buffer belongs to a layer whose initialisation is not known here.
    """
    for key in model.state_dict():
        owner = model.get_submodule(key.rpartition(".")[0])
        if not isinstance(owner, Encoding) and type(owner) not in _INITIALISED:
            raise TypeError(f"no initialisation is known for {key}, which belongs to a {type(owner).__name__}")
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
            if module.bias is not None:
                bound = 1 / math.sqrt(module.weight[0].numel())
                nn.init.uniform_(module.bias, -bound, bound, generator=generator)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.reset_parameters()
        elif isinstance(module, Encoding):
            module.initialise(generator)
