"""Programs: networks rewritten for attacks give the same logits and gradients, and follow their weights."""

import threading
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from generalist import engine
from generalist.attacks.gradient import slope
from generalist.attacks.losses import cross_entropy, dlr
from generalist.config import EngineOptions
from generalist.engine import dense, matrices
from generalist.engine.program import Program
from generalist.engine.recording import recorded
from generalist.tensors import ImageShape
from tests.model_factory import GREY, RGB, TINY, made, numbers, settle

LABELS = torch.arange(8) % 10


def agree(program: Program, network: nn.Module, images: Tensor, *, within: float = 1e-5) -> None:
    """Logits and gradients differ by rounding, of two losses; through autograd as well."""
    labels = LABELS[: len(images)] % int(network(images[:1]).shape[1])
    raw = network(images).detach()
    assert (program(images) - raw).abs().max() <= within * raw.abs().max()
    for loss in (cross_entropy, dlr):
        expected = slope(network, images, labels, loss)
        assert (slope(program, images, labels, loss) - expected).norm() <= within * expected.norm()
        leaf = images.clone().requires_grad_()
        (through,) = torch.autograd.grad(loss(program(leaf), labels).sum(), leaf)
        assert (through - expected).norm() <= within * expected.norm()


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", list(TINY))
def test_every_architecture_has_a_program(name: str, channels_last: bool) -> None:
    """With statistics of BatchNorm far from the identity."""
    model = made(name, RGB).eval().requires_grad_(False)
    settle(model)
    program = recorded(model, numbers(1, RGB), channels_last=channels_last)
    assert program is not None
    agree(program, model, numbers(8, RGB), within=1e-4)


@pytest.mark.parametrize("name", list(TINY))
def test_bfloat16_points_the_same_way(name: str) -> None:
    """Its gradient is a rough one of the same function; logits come back in float32."""
    model = made(name, RGB).eval().requires_grad_(False)
    settle(model)
    program, images = recorded(model, numbers(1, RGB), dtype=torch.bfloat16), numbers(8, RGB)
    assert program is not None
    assert program(images).dtype == torch.float32
    rough, exact = (slope(own, images, LABELS, cross_entropy).flatten() for own in (program, model))
    assert F.cosine_similarity(rough, exact, dim=0) > 0.97


SIZES = st.integers(3, 6)


@given(st.data(), SIZES, SIZES, st.integers(1, 3), st.integers(1, 2), st.integers(0, 2), st.booleans())
def test_small_convolutions_are_matrices(
    data: st.DataObject, height: int, width: int, kernel: int, stride: int, padding: int, norm: bool
) -> None:
    """Whatever their kernels, strides, paddings and sizes, first in the network or not."""
    draw = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    layers: list[nn.Module] = [nn.Conv2d(2, 3, kernel, stride=stride, padding=padding, bias=not norm)]
    if norm:
        layers.append(nn.BatchNorm2d(3))
    layers += [nn.ReLU(), nn.Conv2d(3, 4, 1), nn.Flatten()]
    body = nn.Sequential(*layers).eval()
    images = torch.rand(5, 2, height, width, generator=draw)
    network = nn.Sequential(body, nn.Linear(body(images).shape[1], 4)).eval()
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=draw))
    settle(network)
    network.requires_grad_(False)
    program = recorded(network, images)
    assert program is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense, "_FULLER", 100.0)
        condensed = program.with_calls(dense._condensed(program.calls, images.shape[1:]))
    assert sum(isinstance(operation, matrices.Banded) for operation, _, _ in condensed.calls) == 2
    assert isinstance(condensed.calls[-1][0], matrices.Rows)
    agree(condensed, network, images, within=1e-4)


@pytest.mark.parametrize("shape", [GREY, ImageShape(2, 5, 7, 3, mean=(0.1, 0.4), std=(0.5, 0.2))])
def test_what_never_changes_is_multiplied_into_the_first_matrix(shape: Any) -> None:
    """Normalisation, padding and rearranging: five operations are left of the small network."""
    model = made("small_cnn", shape, width=4).eval().requires_grad_(False)
    program = engine.fast_attack_network(model, shape, EngineOptions())
    assert program is not None
    names = [type(operation).__name__ for operation, _, _ in program.calls]
    assert names == ["Dense", "Relu", "Banded", "Relu", "Rows"]
    agree(program, model, numbers(8, shape))


def test_a_program_follows_its_network() -> None:
    """After each change of weights, once it is told; BatchNorm's statistics too."""
    model = made("resnet18", RGB).eval()
    program = engine.fast_attack_network(model, RGB, EngineOptions())
    assert program is not None
    images = numbers(4, RGB)
    before = program(images)
    settle(model)
    program.expire()
    assert not torch.equal(program(images), before)
    agree(program, engine.attack_network(model), images, within=1e-4)


class Forked(nn.Module):
    """Goes another way for bright images."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) if images.sum() > 0 else -images.flatten(1)


class Halved(nn.Module):
    """Takes a tensor apart."""

    def forward(self, images: Tensor) -> Tensor:
        upper, lower = images.flatten(1).chunk(2, dim=1)
        return upper + lower


class Noisy(nn.Module):
    """Draws numbers in each pass."""

    def forward(self, images: Tensor) -> Tensor:
        return (images - torch.randn(3, 1, 1)).flatten(1)


class Computed(nn.Module):
    """Its weights are made of others in each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4, 3, 3, 3))

    def forward(self, images: Tensor) -> Tensor:
        return F.conv2d(images, self.weight / self.weight.norm()).flatten(1)


@pytest.mark.parametrize(
    "network",
    [
        Noisy(),
        Computed(),
        Forked(),
        Halved(),
        nn.Sequential(nn.Flatten(), nn.Sigmoid()),
        nn.Sequential(nn.BatchNorm2d(3), nn.Flatten()),
    ],
    ids=["noisy", "computed", "forked", "halved", "sigmoid", "batch statistics"],
)
def test_what_is_unknown_has_no_program(network: nn.Module) -> None:
    """It is attacked as it is."""
    assert recorded(network.train(), numbers(4, RGB)) is None


def test_recording_leaves_other_threads_alone() -> None:
    """Experts train in threads: networks are asked in one while another records."""
    model, images = made("resnet18", RGB).eval().requires_grad_(False), numbers(2, RGB)
    expected, wrong = model(images), []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            if not torch.equal(model(images), expected):
                wrong.append("another answer")

    thread = threading.Thread(target=ask)
    thread.start()
    programs = [recorded(model, images) for _ in range(10)]
    done.set()
    thread.join()
    assert not wrong
    assert all(program is not None and len(program.calls) == len(programs[0].calls) for program in programs)  # type: ignore[union-attr]
