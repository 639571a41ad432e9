"""Models that draw random numbers: verdicts by a majority of fresh draws, gradients by their expectation."""

import functools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from generalist.attacks import (
    VERSIONS,
    AutoAttackResult,
    attack_ensemble,
    autoattack,
    fixed_batches,
    misclassified,
    model_checks,
)
from generalist.threats import Threat
from tests.cascade_bits import everything
from tests.strategies import generator, problem

NETWORK, IMAGES, LABELS = problem(20)
THREAT = Threat("linf", 0.04)
DRAWS = 30


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """Few steps, draws and images at a time."""
    monkeypatch.setitem(VERSIONS, "rand", replace(VERSIONS["rand"], steps=4, draws=3))
    monkeypatch.setattr(attack_ensemble, "_VERDICT_DRAWS", DRAWS)
    monkeypatch.setattr(model_checks, "_HUGE_STEPS", 2)
    monkeypatch.setattr(fixed_batches, "_TILE", 20)


def noisy(images: Tensor, *, spread: float = 0.1) -> Tensor:
    """Answer as a network with noise on its input."""
    return NETWORK(images + spread * torch.randn(images.shape))


def mistaken(share: float) -> Callable[[Tensor], Tensor]:
    """Return a network that sees class 0 in all images, but class 1 in a share of the draws, whatever the input."""

    def network(images: Tensor) -> Tensor:
        logits = torch.tensor([1.0, 0.0, -1.0]) + 1e-3 * images.flatten(1)[:, :3]
        return torch.where(torch.rand(len(images), 1) < share, logits.roll(1, dims=1), logits)

    return network


def rand(network: Callable[[Tensor], Tensor], labels: Tensor = LABELS, **changed: int) -> AutoAttackResult:
    """Return the verdicts of the version for such models."""
    return autoattack(network, IMAGES, labels, THREAT, version="rand", **changed)


@functools.cache
def ordinary() -> AutoAttackResult:
    """Those of the network with noise."""
    return rand(noisy)


def test_the_same_seed_gives_the_same_bits():
    """Whatever torch's generator did before; it is left as it was. Another seed draws other numbers."""
    torch.manual_seed(5)
    first = ordinary()
    torch.rand(7)
    before = torch.get_rng_state()
    again = rand(noisy)
    assert torch.equal(torch.get_rng_state(), before) and everything(again) == everything(first)
    other = autoattack(noisy, IMAGES, LABELS, THREAT, version="rand", attacks=["apgd-ce"], seed=1)
    assert not torch.equal(other.correct, first.correct) and not torch.equal(other.adversarial, first.adversarial)


def test_robust_means_correct_in_most_draws():
    """A share of all draws, in [0, 1]; clean verdicts are by a majority as well."""
    result = ordinary()
    assert ((result.correct >= 0) & (result.correct <= 1)).all()
    times = DRAWS * result.correct
    assert torch.allclose(times, times.round(), atol=1e-3)
    assert torch.equal(result.robust, result.correct > 0.5)
    assert ((result.correct > 0) & (result.correct < 1)).sum() >= 3
    assert (result.clean | ~result.robust).all() and {"clean", "apgd-ce", None} <= set(result.fooled_by)


def test_what_is_broken_is_broken_in_most_fresh_draws():
    """Of four hundred others; inside ball and range, and the share is that of the draws."""
    result = ordinary()
    broken = result.clean & ~result.robust
    points, labels = result.adversarial[broken], LABELS[broken]
    assert len(labels) >= 4
    with torch.random.fork_rng():
        torch.manual_seed(99)
        share = sum(1 - misclassified(noisy(points), labels).float() for _ in range(400)) / 400
    assert (share < 0.7).all() and ((share - result.correct[broken]).abs() < 0.25).all()
    assert ((points >= 0) & (points <= 1)).all()
    assert (THREAT.distance(points, IMAGES[broken]) <= float(THREAT.eps) * (1 + 1e-6)).all()


def test_the_attack_lowers_the_share_of_correct_draws():
    """Far more than noise of the same size does."""
    clean = autoattack(noisy, IMAGES, LABELS, Threat("linf", 0.0), version="rand", attacks=["apgd-dlr"])
    attacked = ordinary()
    assert attacked.correct.mean() < clean.correct.mean() - 0.15
    assert attacked.robust.sum() <= clean.robust.sum() - 4


def test_without_randomness_shares_are_one_or_zero():
    """And verdicts those of a single draw."""
    result = autoattack(NETWORK, IMAGES, LABELS, THREAT, version="rand", attacks=["apgd-ce"])
    assert torch.equal(result.correct, result.robust.float())
    assert torch.equal(result.clean, ~misclassified(NETWORK(IMAGES), LABELS))
    broken = result.clean & ~result.robust
    assert broken.sum() >= 3 and misclassified(NETWORK(result.adversarial[broken]), LABELS[broken]).all()
    assert torch.equal(result.margins > 0, result.robust)


def test_less_noise_leaves_less_doubt():
    """The shares come nearer to one or zero."""
    little = rand(lambda images: noisy(images, spread=0.02))
    doubt = [(result.correct - 0.5).abs().mean() for result in (ordinary(), little)]
    assert doubt == sorted(doubt)


@pytest.mark.parametrize(("share", "robust"), [(0.2, True), (0.8, False)])
def test_a_lucky_draw_decides_nothing(share, robust):
    """An image that is wrong in a fifth of the draws is robust; one that is right in a fifth is not even clean."""
    result = rand(mistaken(share), torch.zeros_like(LABELS))
    assert (result.robust == robust).all() and (result.clean == robust).all()
    assert ((result.correct - (1 - share)).abs() < 0.25).all()
    assert torch.equal(result.adversarial, IMAGES)
    assert result.flag_counts["unconfirmed successes"] == 0 and "random" not in result.flags


def test_the_standard_version_says_that_the_model_is_random():
    """So that nobody takes its verdicts for those of such a model."""
    result = autoattack(noisy, IMAGES, LABELS, THREAT, attacks=["square"], square_queries=2)
    assert "random" in result.flags


def test_numbers_of_the_model_s_own_generator_are_its_own_business():
    """A model that draws from a generator of its own still gets a majority of fresh draws."""
    own = generator(0)
    result = rand(lambda images: NETWORK(images + 0.1 * torch.randn(images.shape, generator=own)))
    assert torch.equal(result.robust, result.correct > 0.5) and 0 < result.robust.sum() < 20
