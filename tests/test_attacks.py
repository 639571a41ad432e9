"""FGSM and PGD."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from generalist.attacks import attack_from, cross_entropy, pgd
from generalist.config import AttackOptions
from generalist.errors import BadInput
from generalist.threats import Threat
from tests.strategies import Recorder, conv_net, generator, images, linear_net, norms, seeds, threats

LINF, L2 = Threat("linf", 0.1), Threat("l2", 0.5)


def labels_for(pixels: torch.Tensor, classes: int = 4) -> torch.Tensor:
    """Return some labels."""
    return torch.arange(len(pixels)) % classes


def fgsm(network, images, labels, threat, *, step_size=None, **more):
    """Return what the attack of that name makes."""
    return attack_from(AttackOptions(name="fgsm", step_size=step_size), threat)(network, images, labels, **more)


def two_class(weights: torch.Tensor) -> nn.Sequential:
    """Logits (w·x, -w·x)."""
    return linear_net(torch.stack([weights, -weights]), torch.zeros(2, dtype=weights.dtype))


@given(images(), seeds)
def test_pgd_attains_the_linf_optimum_of_a_linear_classifier(pixels, seed):
    """On w·x the worst point is x - eps sign(w) in the pixel range, from any start."""
    pixels = pixels.double()
    weights = torch.randn(pixels[0].numel(), dtype=torch.float64, generator=generator(seed))
    worst = (pixels - 0.1 * weights.sign().view_as(pixels[0])).clamp(0, 1)
    labels = torch.zeros(len(pixels), dtype=torch.int64)
    found = pgd(two_class(weights), pixels, labels, LINF, steps=10, generator=generator(seed))
    assert_close(found, worst, atol=1e-12, rtol=0)
    assert_close(fgsm(two_class(weights), pixels, labels, LINF), worst, atol=1e-12, rtol=0)


@given(seeds, st.integers(1, 6), st.integers(1, 6))
def test_pgd_attains_the_l2_optimum_of_a_linear_classifier(seed, height, width):
    """Where the pixel range does not bind, the worst point is x - eps w / |w|."""
    weights = torch.randn(height * width, dtype=torch.float64, generator=generator(seed))
    pixels = torch.full((2, 1, height, width), 0.5, dtype=torch.float64)
    labels = torch.zeros(2, dtype=torch.int64)
    threat = Threat("l2", 0.4)
    worst = pixels - (0.4 * weights / weights.norm()).view(1, height, width)
    # Steps of the radius: each halves the angle between the offset and the gradient, or more.
    found = pgd(two_class(weights), pixels, labels, threat, steps=40, step_size=0.4, generator=generator(seed))
    assert_close(found, worst, atol=1e-8, rtol=0)
    assert_close(fgsm(two_class(weights), pixels, labels, threat), worst, atol=1e-9, rtol=0)


@given(images(smallest=2, largest=6), threats(), seeds, st.integers(1, 4), st.booleans())
def test_adversarial_images_are_allowed_points(pixels, threat, seed, steps, random_start):
    """In the ball and in the pixel range, float32 like the images, which are left as they are."""
    network, before = conv_net(tuple(pixels.shape[1:]), seed=seed), pixels.clone()
    found = pgd(
        network,
        pixels,
        labels_for(pixels),
        threat,
        steps=steps,
        random_start=random_start,
        generator=generator(seed),
    )
    assert found.dtype == torch.float32 and found.shape == pixels.shape and not found.requires_grad
    assert (found >= 0).all() and (found <= 1).all()
    assert (threat.distance(found, pixels) <= float(threat.eps) * (1 + 1e-6)).all()
    assert torch.equal(pixels, before)


@pytest.mark.parametrize("steps", [1, 3, 7])
def test_pgd_takes_exactly_its_steps(steps):
    """One forward and one backward pass a step, none more, at `steps` different points."""
    backward = []
    network = conv_net((1, 4, 4))
    network[0].register_full_backward_hook(lambda *_: backward.append(1))
    asked, pixels = Recorder(network), torch.rand(3, 1, 4, 4, generator=generator(0))
    pgd(asked, pixels, labels_for(pixels), LINF, steps=steps, step_size=0.01, generator=generator(0))
    assert len(asked.seen) == len(backward) == steps
    assert len(torch.stack(asked.seen).unique(dim=0)) == steps


def path(**options) -> list[torch.Tensor]:
    """Return the points of a PGD run along a straight line far inside the ball, the last one included."""
    weights = torch.ones(4, dtype=torch.float64)
    pixels = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)
    network = Recorder(two_class(weights))
    end = pgd(network, pixels, torch.zeros(1, dtype=torch.int64), Threat("l2", 0.4), random_start=False, **options)
    return [*network.seen, end]


def lengths(points: list[torch.Tensor]) -> list[float]:
    """Of the steps between points."""
    return [round((b - a).norm().item(), 9) for a, b in pairwise(points)]


def test_step_sizes():
    """2.5 eps / steps by default, or as given; FGSM steps eps, or as given; no random start means the image."""
    assert lengths(path(steps=10))[:3] == [0.1, 0.1, 0.1]
    assert lengths(path(steps=4, step_size=0.03)) == [0.03] * 4
    assert torch.equal(path(steps=4)[0], torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64))
    pixels, labels = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64), torch.zeros(1, dtype=torch.int64)
    network = two_class(torch.ones(4, dtype=torch.float64))
    for size, expected in ((None, 0.4), (0.03, 0.03)):
        moved = fgsm(network, pixels, labels, Threat("l2", 0.4), step_size=size) - pixels
        assert moved.norm().item() == pytest.approx(expected)


def test_a_given_start_is_projected_and_used():
    """Instead of a random one; it is not changed."""
    network, pixels = Recorder(conv_net((1, 3, 3))), torch.full((2, 1, 3, 3), 0.5)
    start = torch.rand(2, 1, 3, 3, generator=generator(0))
    before = start.clone()
    pgd(network, pixels, labels_for(pixels), LINF, steps=2, start=start)
    assert torch.equal(network.seen[0], LINF.project(start, pixels)) and torch.equal(start, before)


@given(norms)
def test_a_random_start_is_the_threats(norm):
    """Drawn by the given generator, as `random_start` draws it; the same generator gives the same images."""
    threat, pixels = Threat(norm, 0.2), torch.rand(3, 1, 4, 4, generator=generator(1))
    network = Recorder(conv_net((1, 4, 4)))
    ends = [pgd(network, pixels, labels_for(pixels), threat, steps=2, generator=generator(5)) for _ in range(2)]
    assert torch.equal(network.seen[0], threat.random_start(pixels, generator(5)))
    assert torch.equal(*ends)


def test_any_loss_can_be_raised():
    """Lowering one logit of a linear network moves against its weights."""
    weights = torch.randn(3, 4, generator=generator(0), dtype=torch.float64)
    network = linear_net(weights, torch.zeros(3, dtype=torch.float64))
    pixels = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)

    def lower_the_third(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return -logits[:, 2]

    found = fgsm(network, pixels, torch.zeros(1, dtype=torch.int64), LINF, loss=lower_the_third)
    assert_close(found, pixels - 0.1 * weights[2].sign().view(1, 1, 2, 2), atol=1e-12, rtol=0)


def test_nothing_of_the_callers_is_touched():
    """Global generator, modes, requires_grad, .grad; and it works where gradients are switched off."""
    network, pixels = conv_net((1, 4, 4)), torch.rand(3, 1, 4, 4, generator=generator(0))
    network[0].train()
    network[2].weight.requires_grad_(False)
    before = torch.get_rng_state()
    with torch.no_grad():
        found = pgd(network, pixels, labels_for(pixels), LINF, steps=2, generator=generator(0))
        assert not torch.is_grad_enabled()
    assert (found != pixels).any()
    assert torch.equal(torch.get_rng_state(), before)
    assert [part.training for part in network] == [True] + [False] * 5
    assert [parameter.requires_grad for parameter in network.parameters()] == [True, True, False, True, True, True]
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"steps": 0}, "0 steps; give it one at least"), ({"steps": 2}, "a random start needs a generator")],
)
def test_an_attack_that_cannot_run_says_so(options, reason):
    """Before the first pass."""
    network, pixels = Recorder(conv_net((1, 3, 3))), torch.rand(1, 1, 3, 3)
    with pytest.raises(BadInput, match=reason):
        pgd(network, pixels, labels_for(pixels), LINF, **options)
    assert not network.seen


def test_the_configuration_names_the_attack():
    """PGD with its options, and FGSM that draws nothing, behind one signature."""
    network, pixels = conv_net((1, 4, 4)), torch.rand(3, 1, 4, 4, generator=generator(0))
    labels = labels_for(pixels)
    options = AttackOptions.model_validate({"steps": 3, "step_size": "1/50"})
    named = attack_from(options, L2)(network, pixels, labels, generator=generator(4))
    assert torch.equal(named, pgd(network, pixels, labels, L2, steps=3, step_size=0.02, generator=generator(4)))
    from_images = attack_from(AttackOptions(steps=3, random_start=False), L2)(network, pixels, labels)
    assert torch.equal(from_images, pgd(network, pixels, labels, L2, steps=3, random_start=False))
    single, numbers = attack_from(AttackOptions(name="fgsm"), LINF), generator(4)
    one = pgd(network, pixels, labels, LINF, steps=1, step_size=0.1, random_start=False)
    assert torch.equal(single(network, pixels, labels, generator=numbers), one)
    assert torch.equal(numbers.get_state(), generator(4).get_state())
    given = attack_from(options, L2)(network, pixels, labels, start=pixels, loss=lambda z, y: -cross_entropy(z, y))
    assert (cross_entropy(network(given), labels) <= cross_entropy(network(pixels), labels)).all()
