"""Networks: with initial or given weights, and frozen, as attacks on training images and objectives see them."""

import copy
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from generalist.config import EngineOptions, ModelOptions
from generalist.engine.cuda_graphs import Computation, GraphCache, cuda_graph
from generalist.ensemble import build_for
from generalist.models import Classifier, build, initialise
from generalist.randomness import generator
from generalist.tensors import Images, ImageShape, PerImage, Weights

WIDE = 64
"""Channels from which on convolutions are computed in channels_last, and on GPUs compiled; narrower ones lose by it."""


def initial_weights(options: ModelOptions, shape: ImageShape, seed: int, number: int = 0) -> Weights:
    """Return the initial state of all experts, or another one by its number: the same on every device and thread."""
    model = build(options, shape)
    initialise(model, generator(seed, "init", *([number] if number else [])))
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def model_with(options: ModelOptions, shape: ImageShape, weights: Weights, *, on: torch.device) -> Classifier:
    """Return a network in eval mode with copies of the given weights; an ensemble where they are one's."""
    model = build_for(options, shape, weights)
    model.load_state_dict(weights)
    model.to(memory_format=memory_format(model))  # type: ignore[call-overload]  # stubs lack it
    return model.to(on).eval()


class FrozenNetwork(nn.Module):
    """Weights as a frozen function of images, float32: raw outputs, or what `view` says.

    The copy of the model inside is in eval mode, needs no gradients of its weights, and shares the storage of every
    parameter and buffer: it follows each optimizer step and needs no switching of modes. Gradients lead to the images
    alone.

    Attributes:
        network: the copy.
        graphs: repeats whole attacks on this network, where that is possible.
        viewed: as what function of images; see `view`.
        condition: of each image; see `at`.
    """

    viewed = "raw"
    condition: PerImage | None = None

    def __init__(self, model: Classifier, options: EngineOptions, weights: Weights | None = None) -> None:
        """Share the model's own weights, or others of the same form and on the same device."""
        super().__init__()
        self.network = _frozen(model, weights or model.state_dict())
        self._bfloat16 = "bfloat16" in (options.precision, options.attack_precision)
        cuda = model.mean.device.type == "cuda"
        self.graphs = GraphCache(cuda_graph) if cuda and not options.eager else None
        self.eval()

    def view(self, name: str) -> Self:
        """Return the same network as another function of images.

        Args:
            name: "raw" outputs, penultimate "features", or one of the network's own `views`, such as "decision".
        """
        other = copy.copy(self)
        other.viewed = name
        return other

    def at(self, condition: PerImage) -> Self:
        """Return the same network at conditions, for batches of so many images."""
        other = copy.copy(self)
        other.condition = condition
        return other

    def forward(self, images: Images) -> Tensor:
        network, given = self.network, () if self.condition is None else (self.condition,)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self._bfloat16):
            if self.viewed == "raw":
                output: Tensor = network(images, *given)
            elif self.viewed == "features":
                output = network.features(images, *given)
            else:
                output = network.views()[self.viewed](images, *given)
        return output.float()


def repeated(
    network: Callable[..., Any],
    key: Hashable,
    work: Computation,
    inputs: Sequence[Tensor],
    agrees: Callable[[Tensor, Tensor], bool],
) -> Tensor:
    """Return the result of `work(*inputs)`: by a CUDA graph where an attacked network has them, see `GraphCache`."""
    if not isinstance(network, FrozenNetwork) or network.graphs is None:
        return work(*inputs)
    condition = network.condition
    if condition is None:
        return network.graphs((network.viewed, key), work, inputs, agrees)

    def conditioned(condition: Tensor, *inputs: Tensor) -> Tensor:
        network.condition = condition  # a graph reads it at an address of its own
        return work(*inputs)

    try:
        return network.graphs((network.viewed, key), conditioned, (condition, *inputs), agrees)
    finally:
        network.condition = condition


def _frozen(model: Classifier, weights: Weights) -> Classifier:
    shadow = copy.deepcopy(model)
    tensors = {**dict(model.named_buffers()), **weights}  # some buffers are constants, which are no weights
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


def memory_format(model: nn.Module, *, eager: bool = False) -> torch.memory_format:
    """Return how weights of convolutions lie in memory: channels last in wide networks, unless `eager`."""
    return torch.channels_last if wide(model) and not eager else torch.contiguous_format
