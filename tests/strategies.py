"""Hypothesis strategies and small networks that several tests share."""

import math
from collections.abc import Callable

import hypothesis.strategies as st
import torch
from torch import Tensor, nn

from generalist.config.section import part_names
from generalist.threats import Threat

seeds = st.integers(0, 2**31)
norms = st.sampled_from(part_names("threats"))


def generator(seed: int) -> torch.Generator:
    """Return a generator of its own: tests don't move the global one either."""
    return torch.Generator().manual_seed(seed)


@st.composite
def images(draw: st.DrawFn, *, smallest: int = 1, largest: int = 9) -> Tensor:
    """float32 images in [0, 1]: one or three channels, any height and width; smooth, black and white, or flat."""
    batch, channels = draw(st.integers(1, 4)), draw(st.sampled_from([1, 3]))
    height, width = draw(st.integers(smallest, largest)), draw(st.integers(smallest, largest))
    pixels = torch.rand(batch, channels, height, width, generator=generator(draw(seeds)))
    kind = draw(st.sampled_from(["smooth", "black and white", "flat"]))
    if kind == "black and white":
        return pixels.round()
    return pixels if kind == "smooth" else pixels[:, :1, :1, :1].expand_as(pixels).contiguous()


@st.composite
def threats(draw: st.DrawFn) -> Threat:
    """Any norm, from no radius at all to one that holds every image."""
    return Threat(draw(norms), draw(st.sampled_from([0.0, 1e-4, 1 / 255, 8 / 255, 0.15, 0.5, 1.0, 20.0])))


def conv_net(shape: tuple[int, int, int], *, classes: int = 4, seed: int = 0) -> nn.Sequential:
    """Return a small random network for images [channels, height, width], in eval mode; curved, so attacks differ."""
    channels, height, width = shape
    network = nn.Sequential(
        nn.Conv2d(channels, 8, kernel_size=3, padding=1),
        nn.Tanh(),
        nn.Conv2d(8, 8, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * height * width, classes),
    ).eval()
    numbers = generator(seed)
    for parameter in network.parameters():
        fan_in = math.prod(parameter.shape[1:])
        parameter.data.normal_(0, 1.5 / math.sqrt(fan_in), generator=numbers)
    # Pixels around 1/2 become numbers around 0, and no class is preferred, so that small changes decide.
    network[0].weight.data.mul_(4)
    network[0].bias.data.copy_(-network[0].weight.data.sum(dim=(1, 2, 3)) / 2)
    network[-1].bias.data.zero_()
    return network


def problem(
    count: int, shape: tuple[int, int, int] = (1, 6, 6), *, classes: int = 4, seed: int = 0
) -> tuple[nn.Sequential, Tensor, Tensor]:
    """Return a network, images, and labels of which one in ten is wrong."""
    network = conv_net(shape, classes=classes, seed=seed)
    pixels = torch.rand(count, *shape, generator=generator(seed))
    labels = network(pixels).argmax(1)
    labels[::10] = (labels[::10] + 1) % classes
    return network, pixels, labels


class Recorder:
    """A network that remembers the points it was asked, or the first `count` of each pass."""

    def __init__(self, network: Callable[[Tensor], Tensor], count: int | None = None) -> None:
        self.network, self.count = network, count
        self.seen: list[Tensor] = []

    def __call__(self, points: Tensor) -> Tensor:
        self.seen.append(points[: self.count].detach().clone())
        return self.network(points)


def linear_net(weights: Tensor, bias: Tensor) -> nn.Sequential:
    """Logits W x + b for weights [classes, pixels]."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(weights.shape[1], weights.shape[0])).to(weights.dtype).eval()
    network[1].weight.data.copy_(weights)
    network[1].bias.data.copy_(bias)
    return network
