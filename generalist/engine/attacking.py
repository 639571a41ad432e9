"""The network that attacks on training images see."""

import copy

import torch
from torch import nn

from generalist.config import EngineOptions
from generalist.engine.dense import condensed
from generalist.engine.program import Program
from generalist.engine.recording import recorded
from generalist.engine.replaying import Replays, cuda_graph
from generalist.models import Classifier
from generalist.tensors import ImageShape

WIDE = 64
"""Channels from which on convolutions are computed in channels_last, and on GPUs compiled; narrower ones lose by it."""


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


def wide(model: nn.Module) -> bool:
    """Whether a network has convolutions wide enough for other ways to compute them."""
    convolutions = [part for part in model.modules() if isinstance(part, nn.Conv2d)]
    return any(own.in_channels >= WIDE for own in convolutions)


def channels_last(model: nn.Module, options: EngineOptions) -> bool:
    """Whether values of a network should lie in memory channel by channel of each pixel."""
    return not options.plain and wide(model)


def fast_attack_network(model: Classifier, shape: ImageShape, options: EngineOptions) -> Program | None:
    """The same function as `attack_network`, to be expired after each optimizer step; None where there is none."""
    if options.plain:
        return None
    dtype = torch.bfloat16 if "bfloat16" in (options.precision, options.attack_precision) else torch.float32
    image = torch.Size((shape.channels, shape.height, shape.width))
    ramp = torch.linspace(0, 1, image.numel(), device=model.mean.device).view(1, *image)
    program = recorded(attack_network(model), ramp, dtype=dtype, channels_last=channels_last(model, options))
    if program is not None and model.mean.device.type == "cuda":
        program.replays = Replays(cuda_graph)
    return program if program is None or model.mean.device.type != "cpu" else condensed(program, image)
