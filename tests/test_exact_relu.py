"""Attacks on small ReLU networks, whose exact adversarial distances are known by going through all linear pieces."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from generalist.attacks import autoattack, fixed_batches, margin
from generalist.threats import Threat
from tests import exact_linear, exact_relu
from tests.exact_linear import NORMS, level_images
from tests.strategies import generator, linear_net

pytestmark = pytest.mark.long

GRADIENT = ("apgd-ce", "apgd-t", "fab-t")


def problem(make, *, classes: int = 4, count: int = 60) -> tuple[torch.nn.Sequential, Tensor, Tensor]:
    """Return a network of five hidden units that bend, images of twelve pixels, and the classes it sees in them."""
    network = make(12, hidden=5, classes=classes, seed=1)
    images = torch.rand(count, 1, 3, 4, generator=generator(1)).mul_(1.4).sub_(0.2).clamp_(0, 1)
    return network, images, network(images).argmax(1)


def level_problem(make, norm: str, *, classes: int) -> tuple[torch.nn.Sequential, Tensor, float]:
    """Return a network, six images of class 0 that all have one exact distance, to 1e-3, and that distance."""
    network, images, labels = problem(make, classes=classes, count=300)
    own, others = images[labels == 0], images[labels != 0]
    exact = exact_relu.exact_distances(network, own[:14], labels[labels == 0][:14], norm)
    eps = exact.median().item()
    rows = ((exact > eps) & exact.isfinite()).nonzero().flatten()[:6]
    level = level_images(
        lambda points, _: exact_relu.exact_distances(network, points, labels.new_zeros(len(points)), norm),
        own[rows],
        others[: len(rows)],
        eps,
        by=1e-3,
    )
    assert len(level) == 6
    return network, level, eps


def broken(network: torch.nn.Sequential, images: Tensor, threat: Threat, attacks: tuple[str, ...] = GRADIENT) -> int:
    """How many images of class 0 some attacks break."""
    result = autoattack(network, images, torch.zeros(len(images)).long(), threat, attacks=attacks)
    assert result.clean.all()
    return int((~result.robust).sum())


@pytest.mark.parametrize("norm", NORMS)
def test_where_all_units_are_on_the_distance_is_the_linear_one(norm):
    """To 1e-6, the tolerance of the solvers: their programmes against the closed form."""
    network, images, _ = problem(exact_relu.relu_net)
    network[1].bias.data.add_(100)
    (first, second) = network[1::2]
    weights = (second.weight @ first.weight).detach()
    bias = (second.weight @ first.bias + second.bias).detach()
    labels = linear_net(weights, bias)(images).argmax(1)
    expected = exact_linear.exact_distances(weights, bias, images, labels, norm)
    assert_close(exact_relu.exact_distances(network, images, labels, norm), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_the_nearest_adversary_is_one_and_nothing_nearer_is(norm):
    """Another class is level there, to 1e-9; of thousands of points just nearer, none is of another class."""
    network, images, labels = problem(exact_relu.relu_net, count=6)
    offsets = exact_relu.exact_offsets(network, images, labels, norm)
    logits = network.double()(images + offsets)
    network.float()
    assert_close(margin(logits, labels), torch.zeros(6).double(), atol=1e-9, rtol=0)
    for image, label, exact in zip(images, labels, Threat(norm, 1.0).ball(images).norm(offsets), strict=True):
        many = image.expand(20_000, *image.shape)
        away = torch.randn(many.shape, generator=generator(2))
        if norm == "linf":
            away = away.sign() * (torch.rand(many.shape, generator=generator(3)) < 0.9)
        points = Threat(norm, 0.999 * exact.item()).project(many + 0.3 * away, many)
        assert (network(points).argmax(1) == label).all()


# How far beyond. In Linf steps go along the gradient's signs, and may wait at a kink; so does one of these images.
BEYOND = {("linf", 3): 1.02, ("l2", 2): 1.01, ("l2", 4): 1.01, ("l1", 3): 1.01}


@pytest.mark.parametrize(("norm", "classes"), BEYOND)
def test_all_is_broken_just_beyond_the_exact_distance_and_nothing_within(norm, classes, monkeypatch):
    """By the gradient members, one hundredth farther and one hundredth nearer, where nothing but kinks is in the way."""
    monkeypatch.setattr(fixed_batches, "_TILE", 6)
    network, images, eps = level_problem(exact_relu.concave_net, norm, classes=classes)
    offsets = exact_relu.exact_offsets(network, images, torch.zeros(6).long(), norm)
    units, nearest = (network[1](points.flatten(1)) > 0 for points in (images, images + offsets.float()))
    assert (units != nearest).any(), "some kink must lie between an image and its adversary"
    assert broken(network, images, Threat(norm, BEYOND[norm, classes] * eps)) == 6
    assert broken(network, images, Threat(norm, 0.99 * eps), ("apgd-t",)) == 0


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_in_any_network_nothing_within_the_exact_distance_is_broken(norm, monkeypatch):
    """And most images beyond it: before the others lie lower summits, where the original's runs end as well."""
    monkeypatch.setattr(fixed_batches, "_TILE", 6)
    network, images, eps = level_problem(exact_relu.relu_net, norm, classes=4)
    assert broken(network, images, Threat(norm, 1.01 * eps)) >= 4
    assert broken(network, images, Threat(norm, 0.99 * eps), ("apgd-t", "fab-t")) == 0
