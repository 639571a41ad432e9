"""Networks: with common initial weights or given ones, and as attacks on training images see them."""

import copy
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from generalist.config import EngineOptions, ModelOptions
from generalist.engine.cuda_graphs import GraphCache, Work, cuda_graph
from generalist.models import Classifier, build, initialise
from generalist.randomness import generator
from generalist.tensors import Images, ImageShape, Logits, Weights

WIDE = 64
"""Channels from which on convolutions are computed in channels_last, and on GPUs compiled; narrower ones lose by it."""


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


class AttackNetwork(nn.Module):
    """A model's weights as a frozen function from images to raw outputs, float32.

    The copy inside is in eval mode, needs no gradients of its weights, and shares the storage of every parameter and
    buffer: it follows each optimizer step and needs no switching of modes. Gradients lead to the images alone.

    Attributes:
        network: the copy.
        graphs: repeats whole attacks on this network, where that is possible.
    """

    def __init__(self, model: Classifier, options: EngineOptions) -> None:
        super().__init__()
        self.network = _frozen(model)
        self._bfloat16 = "bfloat16" in (options.precision, options.attack_precision)
        cuda = model.mean.device.type == "cuda"
        self.graphs = GraphCache(cuda_graph) if cuda and not options.plain else None
        self.eval()

    def forward(self, images: Images) -> Logits:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self._bfloat16):
            raw: Logits = self.network(images)
        return raw.float()


def repeated(
    network: Callable[..., Any],
    key: Hashable,
    work: Work,
    inputs: Sequence[Tensor],
    agrees: Callable[[Tensor, Tensor], bool],
) -> Tensor:
    """Return the result of `work(*inputs)`: by a CUDA graph where an attacked network has them, see `GraphCache`."""
    graphs = network.graphs if isinstance(network, AttackNetwork) else None
    return work(*inputs) if graphs is None else graphs(key, work, inputs, agrees)


def _frozen(model: Classifier) -> Classifier:
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
    """Return whether a network has convolutions wide enough for other ways to compute them."""
    convolutions = [part for part in model.modules() if isinstance(part, nn.Conv2d)]
    return any(convolution.in_channels >= WIDE for convolution in convolutions)


def memory_format(model: nn.Module, *, plain: bool = False) -> torch.memory_format:
    """Return how weights of convolutions lie in memory: channels last in wide networks, unless `plain`."""
    return torch.channels_last if wide(model) and not plain else torch.contiguous_format
