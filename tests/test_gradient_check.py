"""The flag `gradient mismatch`: sound networks with kinks don't get it, wrong gradients do."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import Tensor, nn

from generalist.attacks import VERSIONS, autoattack, model_checks, pgd
from generalist.attacks.fixed_batches import logits_of, loss_gradients_of
from generalist.attacks.losses import Network, other_classes_by_logit, targeted_margin
from generalist.attacks.model_checks import check_gradients
from generalist.randomness import ImageStreams
from generalist.threats import Threat
from tests.strategies import conv_net, generator, seeds


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """Attacks of a few steps: the gradient is looked at before them."""
    monkeypatch.setattr(model_checks, "_HUGE_STEPS", 2)
    monkeypatch.setitem(VERSIONS, "standard", replace(VERSIONS["standard"], steps=5))


def mismatches(network: nn.Module, images: Tensor, *, module: bool = True) -> int:
    """How many images a network's gradient is denied for, as a module or as a plain callable."""
    labels = logits_of(network, images).argmax(1)
    streams = ImageStreams.of(images, labels, seed=0)
    precise = copy.deepcopy(network).double() if module else None
    found = check_gradients(network, images, labels, Threat("linf", 0.1), streams, precise=precise)
    return int(found.flag_counts["gradient mismatch"].sum())


def one_difference(network: Network, images: Tensor) -> int:
    """Count the same by a single two-sided difference of a fixed length at the images themselves, in float32."""
    points, labels = images * 0.98 + 0.01, logits_of(network, images).argmax(1)
    length = 1e-4 * math.sqrt(images[0].numel())
    targets = other_classes_by_logit(logits_of(network, points), labels)[:, 0]
    gradients = loss_gradients_of(network, points, labels, targeted_margin, targets).gradients
    size = gradients.flatten(1).norm(dim=1)
    step = gradients / size.view(-1, 1, 1, 1) * length
    leads = [targeted_margin(logits_of(network, points + sign * step), labels, targets) for sign in (1, -1)]
    ratio = (leads[0] - leads[1]) / (2 * length * size)
    return int((~((ratio > 0.5) & (ratio < 2))).sum())


# Sound networks.


def digits(size: int) -> tuple[Tensor, Tensor]:
    """Black and white digits with sharp edges, upscaled."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    sharp = ((images - 0.5) * 20 + 0.5).clamp(0, 1)
    return nn.functional.interpolate(sharp, size=(size, size), mode="nearest"), torch.tensor(digits.target)


def convolutions(channels: tuple[int, int], pools: tuple[int, int]) -> list[nn.Module]:
    """Two convolutions with max pooling, flattened."""
    layers: list[nn.Module] = []
    for ins, outs, pool in zip((1, channels[0]), channels, pools, strict=True):
        layers += [nn.Conv2d(ins, outs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(pool)]
    return [*layers, nn.Flatten()]


def lenet() -> nn.Sequential:
    """Two convolutions with max pooling, and two linear layers; for digits of 28 × 28."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            *convolutions((8, 16), (4, 7)),
            nn.Linear(16, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )


def trained(network: nn.Module, images: Tensor, labels: Tensor, *, epochs: int, eps: float) -> nn.Module:
    """Adversarially, within a radius that grows to eps."""
    optimizer, numbers = torch.optim.Adam(network.parameters(), lr=3e-3), generator(0)
    for epoch in range(epochs):
        threat = Threat("linf", eps * min(1.0, (epoch + 1) / (0.6 * epochs)))
        for rows in torch.randperm(len(images), generator=numbers).split(64):
            points = pgd(network, images[rows], labels[rows], threat, steps=5, generator=numbers)
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(points), labels[rows]).backward()
            optimizer.step()
    return network.eval().requires_grad_(requires_grad=False)


@pytest.mark.long
def test_an_adversarially_trained_lenet_is_not_flagged():
    """Flat areas tie in its pooling windows, so that a difference on both sides is half of what its gradient says."""
    images, labels = digits(28)
    network = trained(lenet(), images[:1500], labels[:1500], epochs=19, eps=0.3)
    few = images[:400][network(images[:400]).argmax(1) == labels[:400]]
    assert len(few) > 200 and one_difference(network, few) > 0.1 * len(few)
    assert mismatches(network, few) == mismatches(network, few, module=False) == 0
    result = autoattack(network, images[:200], labels[:200], Threat("linf", 0.3), attacks=["apgd-ce"])
    assert result.flag_counts["gradient mismatch"] == 0 and (result.passes.forward[result.robust] < 30).all()


def kinked(seed: int, offset: float) -> nn.Sequential:
    """Return a random network with max pooling, of whose weights few are not zero; all its logits are far from zero."""
    network = nn.Sequential(
        *convolutions((6, 8), (3, 2)),
        nn.Linear(32, 5),
    ).requires_grad_(requires_grad=False)
    numbers = generator(seed)
    for parameter in network.parameters():
        kept = torch.rand(parameter.shape, generator=numbers) < 0.4
        parameter.copy_(torch.randn(parameter.shape, generator=numbers) * kept)
    network[-1].bias += offset
    return network.eval()


@pytest.mark.parametrize("module", [True, False], ids=["module", "callable"])
@settings(max_examples=9)
@given(seeds, st.sampled_from([0.0, 1e3, -1e3]), st.sampled_from(["smooth", "black and white", "blocks"]))
def test_kinks_sparse_gradients_and_large_logits_are_no_reason(module, seed, offset, kind):
    """Of 48 images none, though some gradients are zero and others hide behind rounding."""
    images = torch.rand(48, 1, 12, 12, generator=generator(seed))
    if kind != "smooth":
        images = images.round()
    if kind == "blocks":
        images = nn.functional.interpolate(images[:, :, :3, :3], size=(12, 12), mode="nearest")
    assert mismatches(kinked(seed, offset), images, module=module) == 0


class Halved(nn.Module):
    """A network that is asked in bfloat16, whatever it is handed."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.bfloat16()

    def forward(self, points: Tensor) -> Tensor:
        return self.network(points.bfloat16()).float()


def test_what_cannot_be_told_is_no_reason():
    """Where a network rounds more than float32 does, differences show nothing."""
    images = torch.rand(40, 1, 8, 8, generator=generator(0))
    assert mismatches(Halved(conv_net((1, 8, 8))), images, module=False) == 0


# Wrong gradients.


class Custom(torch.autograd.Function):
    """The identity, with a gradient of its own."""

    @staticmethod
    def forward(ctx, points, change):
        ctx.change = change
        return points.clone()

    @staticmethod
    def backward(ctx, gradient):
        return ctx.change(gradient), None


def straight_through(levels: int) -> Callable[[Tensor], Tensor]:
    """Return a rounding that says it were none."""
    return lambda x: x + ((x * levels).round() / levels - x).detach()


WRONG: dict[str, Callable[[Tensor], Tensor]] = {
    "flipped sign": lambda x: Custom.apply(x, torch.neg),
    "mirrored": lambda x: Custom.apply(x, lambda gradient: gradient.flip(3)),
    "another one": lambda x: Custom.apply(x, lambda gradient: gradient.roll(1, 0)),
    "steeper": lambda x: Custom.apply(x, lambda gradient: 5 * gradient),
    "zero": lambda x: Custom.apply(x, torch.zeros_like),
    "8 levels": straight_through(8),
    "32 levels": straight_through(32),
    "256 levels": straight_through(255),
}


class Behind(nn.Module):
    """A network behind something that has a wrong gradient."""

    def __init__(self, first: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.network = first, conv_net((1, 8, 8))

    def forward(self, points: Tensor) -> Tensor:
        return self.network(self.first(points))


@pytest.mark.parametrize(("module", "eps"), [(True, 0.03), (False, 0.3)], ids=["module", "callable"])
@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_wrong_gradient_is_flagged(wrong, module, eps):
    """Whatever the radius; of a callable, too, though float32 is all that is known of it."""
    network = Behind(wrong)
    images = torch.rand(64, 1, 8, 8, generator=generator(3))
    model = network if module else lambda points: network(points)
    result = autoattack(model, images, network(images).argmax(1), Threat("linf", eps), attacks=["apgd-ce"])
    assert "gradient mismatch" in result.flags or (not module and wrong is WRONG["zero"])
    assert result.flags


@pytest.mark.parametrize(("module", "eps"), [(True, 0.3), (False, 0.03)], ids=["module", "callable"])
def test_rounded_pixels_are_flagged(module, eps):
    """By a gradient of zero on what stays robust, or by Square, which breaks it."""
    network = Behind(lambda x: (x * 8).round() / 8)
    images = torch.rand(64, 1, 8, 8, generator=generator(3))
    model = network if module else lambda points: network(points)
    labels = network(images).argmax(1)
    assert autoattack(
        model, images, labels, Threat("linf", eps), attacks=["apgd-ce", "square"], square_queries=60
    ).flags


# Copies in float64.


def test_a_copy_that_fails_or_is_another_network_is_not_asked():
    """Then float32 is what there is; and a network that can't be copied is attacked as any other."""

    class Stubborn(nn.Module):
        def __init__(self, first: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.first, self.other, self.network = first, other, conv_net((1, 8, 8))

        def forward(self, points: Tensor) -> Tensor:
            return self.network(self.first(points)) if points.dtype == torch.float32 else self.other(points)

        def __deepcopy__(self, memo):
            if self.other is None:
                raise TypeError("it holds a lock")
            return Stubborn(self.first, self.other)

    def failing(_: Tensor) -> Tensor:
        raise RuntimeError("no kernel for float64")

    images = torch.rand(64, 1, 8, 8, generator=generator(3))
    linear = lambda x: x.flatten(1)[:, :4]  # noqa: E731
    for other in (None, failing, linear):
        for first, flagged in ((lambda x: x, False), (WRONG["flipped sign"], True)):
            network = Stubborn(first, other)
            labels = network(images).argmax(1)
            result = autoattack(network, images, labels, Threat("linf", 0.05), attacks=["apgd-ce"])
            assert ("gradient mismatch" in result.flags) == flagged


def test_checks_cost_few_passes():
    """Of a sound network: four of the gradient with one backward pass, in float32 as in float64."""
    network, images = conv_net((1, 8, 8)), torch.rand(16, 1, 8, 8, generator=generator(3))
    labels = network(images).argmax(1)
    streams = ImageStreams.of(images, labels, seed=0)
    for precise in (None, copy.deepcopy(network).double()):
        found = check_gradients(network, images, labels, Threat("linf", 1e-6), streams, precise=precise)
        huge = found.backward - 1  # of the run in which every image is allowed, which has as many of both
        assert (found.forward - huge == 4).all()
