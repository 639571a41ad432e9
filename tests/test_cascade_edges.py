"""Sizes at the edge: few and many classes, tiny and narrow images, no image, one survivor, other layouts in memory."""

import os
import resource
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from generalist.attacks import (
    VERSIONS,
    AutoAttackResult,
    autoattack,
    fab,
    fixed_batches,
    margin,
    misclassified,
    model_checks,
)
from generalist.attacks.losses import Network
from generalist.attacks.members import member_names
from generalist.errors import BadInput
from generalist.threats import Threat
from tests.exact_linear import NORMS
from tests.processes import forking
from tests.strategies import generator, linear_net, problem

ALL: dict[str, Any] = {"version": "plus", "attacks": member_names(), "square_queries": 8}


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """All members with very few steps, under the name of `plus`; eight images at a time."""
    monkeypatch.setitem(VERSIONS, "plus", replace(VERSIONS["plus"], restarts=1, targets=3, steps=3, fab_steps=2))
    monkeypatch.setattr(model_checks, "_HUGE_STEPS", 2)
    monkeypatch.setattr(fixed_batches, "_TILE", 8)


def sound(result: AutoAttackResult, network: Network, images: Tensor, labels: Tensor, threat: Threat) -> None:
    """Check every result: shaped as the images, inside ball and range, confirmed; unbroken images as they are."""
    found, broken = result.adversarial, result.clean & ~result.robust
    assert found.shape == images.shape and found.dtype == torch.float32 and not found.isnan().any()
    assert (
        len(result.fooled_by) == len(result.robust) == len(result.margins) == len(result.passes.forward) == len(images)
    )
    assert ((found >= 0) & (found <= 1)).all()
    assert torch.equal(found[~broken], images[~broken])
    if len(images):
        assert (threat.distance(found, images) <= float(threat.eps) * (1 + 1e-6)).all()
        assert torch.equal(result.clean, ~misclassified(network(images), labels))
        assert torch.equal(misclassified(network(found), labels), ~result.robust)
        assert_close(result.margins, margin(network(found), labels).detach(), atol=1e-5, rtol=1e-4)
    for name, robust, clean in zip(result.fooled_by, result.robust.tolist(), result.clean.tolist(), strict=True):
        assert (
            (name is None) == robust and (name == "clean") == (not clean) and name in {None, "clean", *member_names()}
        )


def radius(norm: str, pixels: int) -> Threat:
    """Of a size that breaks some images."""
    return Threat(norm, {"linf": 0.05, "l2": 0.04 * pixels**0.5, "l1": 0.02 * pixels}[norm])


@pytest.mark.parametrize(("classes", "norm"), [(2, "linf"), (3, "l2"), (4, "l1")])
def test_any_number_of_classes(classes, norm):
    """Where there is no third or fourth logit for DLR, and fewer targets than asked for."""
    network, images, labels = problem(12, classes=classes)
    threat = radius(norm, 36)
    result = autoattack(network, images, labels, threat, **ALL)
    sound(result, network, images, labels, threat)
    assert (result.clean & ~result.robust).any() and result.robust.any()
    assert not {"unconfirmed successes", "ties"} & {name for name, count in result.flag_counts.items() if count}


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("member", member_names())
def test_each_member_breaks_something_with_few_classes(member, classes):
    """By itself, as the others would hide that it does nothing."""
    network, images, labels = problem(16, classes=classes)
    threat = Threat("linf", 0.1)
    result = autoattack(network, images, labels, threat, version="plus", attacks=[member], square_queries=30)
    assert member in result.fooled_by


def test_a_thousand_classes():
    """Of which three are aimed at, and one after the other is tried for the nearest boundary."""
    images = torch.rand(3, 1, 4, 4, generator=generator(0))
    network = linear_net(torch.randn(1000, 16, generator=generator(1)), torch.zeros(1000))
    labels = network(images).argmax(1)
    threat = Threat("linf", 0.002)
    result = autoattack(network, images, labels, threat, **ALL)
    sound(result, network, images, labels, threat)
    assert result.robust.any() and result.passes.backward.max() > 1000
    assert not autoattack(network, images, labels, Threat("linf", 0.2), **ALL).robust.any()


@pytest.mark.parametrize(
    ("shape", "norm"),
    [*(((1, 1, 1), norm) for norm in NORMS), *(((3, 1, 7), norm) for norm in NORMS), ((3, 12, 32), "l2")],
    ids=str,
)
def test_any_shape(shape, norm):
    """A single pixel, lines, images that are lower than five pixels or not square, several channels."""
    network, images, labels = problem(7, shape, classes=3)
    threat = radius(norm, images[0].numel())
    sound(autoattack(network, images, labels, threat, **ALL), network, images, labels, threat)


def test_the_version_plus_as_it_is_called():
    """By its own members, with few steps."""
    network, images, labels = problem(14)
    threat = Threat("linf", 0.05)
    result = autoattack(network, images, labels, threat, version="plus", square_queries=12)
    sound(result, network, images, labels, threat)
    assert {"clean", "apgd-ce", None} <= set(result.fooled_by) <= {*VERSIONS["plus"].members, "clean", None}


# Any number of images.


@pytest.mark.parametrize(
    ("rows", "norm"),
    [(slice(0, 0), "l2"), (slice(0, 1), "l1"), *((slice(1, 2), norm) for norm in NORMS)],
    ids=["none", "one wrong", *(f"one right-{norm}" for norm in NORMS)],
)
def test_no_image_and_a_single_one(rows, norm):
    """By all members."""
    network, images, labels = problem(2)
    threat = radius(norm, 36)
    result = autoattack(network, images[rows], labels[rows], threat, **ALL)
    sound(result, network, images[rows], labels[rows], threat)
    assert result.flags == ()


@pytest.mark.parametrize("norm", NORMS)
def test_one_survivor_among_many(norm):
    """All members go on with it alone, and it ends as it would by itself."""
    network, images, labels = problem(12, classes=2)
    threat = replace(radius(norm, 36), eps=5 * radius(norm, 36).eps)

    def mixed(points: Tensor) -> Tensor:
        fourth = (points[:, None] - images).abs().flatten(2).mean(2).argmin(1, keepdim=True) == 3
        return torch.where(fourth, torch.tensor([1.0, 0.0]), network(points))

    labels = mixed(images).argmax(1)
    result = autoattack(mixed, images, labels, threat, **ALL)
    assert result.robust.tolist() == [row == 3 for row in range(12)]
    alone = autoattack(mixed, images[3:4], labels[3:4], threat, **ALL)
    assert alone.robust.all() and alone.passes.forward[0] == result.passes.forward[3]


@pytest.mark.parametrize(
    "threat", [Threat("linf", 1.0), Threat("linf", 8.0), Threat("l2", 7.0), Threat("l1", 48.0)], ids=str
)
def test_a_threat_that_allows_every_image_is_refused(threat):
    """As 8 in place of 8/255: no model is robust to it, and a figure of 0 % would say nothing of this one."""
    network, images, labels = problem(3, (3, 4, 4))
    with pytest.raises(BadInput, match="allows every image"):
        autoattack(network, images, labels, threat)
    assert len(autoattack(network, images[:0], labels[:0], threat).robust) == 0


@pytest.mark.parametrize(
    ("member", "norm"), [*((name, "linf") for name in member_names()), ("fab", "l2"), ("square", "l1")]
)
def test_all_are_broken(member, norm):
    """At once, within a batch; and no member stumbles over having nobody left."""
    weights = torch.zeros(2, 8)
    weights[1] = torch.linspace(0.5, 2.0, 8)
    network = linear_net(weights, torch.tensor([5.1, 0.0]))
    images = torch.full((11, 2, 2, 2), 0.5)
    labels = torch.zeros(11, dtype=torch.int64)
    threat = Threat(norm, {"linf": 0.3, "l2": 0.8, "l1": 2.5}[norm])
    result = autoattack(network, images, labels, threat, version="plus", attacks=[member, "square"], square_queries=300)
    sound(result, network, images, labels, threat)
    assert not result.robust.any() and set(result.fooled_by) <= {member, "square"}
    assert member in result.fooled_by


# Other layouts in memory.


def channels_last(images: Tensor) -> Tensor:
    """Channels of a pixel beside each other."""
    return images.contiguous(memory_format=torch.channels_last)


def strided(images: Tensor) -> Tensor:
    """Every other column of wider images."""
    wide = torch.zeros(*images.shape[:3], 2 * images.shape[3])
    wide[..., ::2] = images
    return wide[..., ::2]


@pytest.mark.parametrize(("layout", "norm"), [*((channels_last, norm) for norm in NORMS), (strided, "linf")])
def test_the_layout_in_memory_decides_nothing(layout, norm):
    """Verdicts and members are the same, and nothing depends on the batch size then either."""
    network, images, labels = problem(5, (3, 6, 6))
    threat = radius(norm, 108)
    laid_out = layout(images)
    assert not laid_out.is_contiguous() and torch.equal(laid_out, images)
    plain = autoattack(network, images, labels, threat, **ALL)
    result = autoattack(network, laid_out, labels, threat, **ALL)
    sound(result, network, images, labels, threat)
    assert torch.equal(result.robust, plain.robust) and result.fooled_by == plain.fooled_by
    assert_close(result.adversarial, plain.adversarial, atol=1e-4, rtol=0)
    small = autoattack(network, laid_out, labels, threat, batch_size=1, **ALL)
    assert torch.equal(small.adversarial, result.adversarial) and torch.equal(small.margins, result.margins)
    if layout is channels_last:
        assert result.adversarial.is_contiguous(memory_format=torch.channels_last)


# Memory.


def grown(network: nn.Module, images: Tensor, labels: Tensor) -> int:
    """Bytes by which a step of untargeted FAB raises the peak of a process."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fab(network, images, labels, Threat("l2", 0.01), steps=1)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


@forking
def test_untargeted_fab_keeps_no_gradients_of_all_classes():
    """Five hundred classes on images of 3 × 64 × 64: all gradients of eight images alone would be 197 MB."""
    network = nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.Linear(48, 500)).eval()
    network[2].weight.data.normal_(generator=generator(0))
    network[2].bias.data.zero_()
    images = torch.rand(8, 3, 64, 64, generator=generator(0))
    labels = network(images).argmax(1)
    reading, writing = os.pipe()
    pid = os.fork()  # a process of its own: its peak begins at what it has
    if pid == 0:
        try:
            os.write(writing, str(grown(network, images, labels)).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(writing)
    with os.fdopen(reading) as told:
        peak = int(told.read())
    assert 0 < peak < 80 * 2**20
