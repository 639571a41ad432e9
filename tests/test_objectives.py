"""Objectives: their losses at points where they are known."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from generalist import engine
from generalist.config import EngineOptions
from generalist.models import build
from generalist.objectives import Learner, Loss, Objective
from generalist.tensors import Batch, ImageShape
from tests.training_factory import small

SHAPE = ImageShape(1, 8, 8, 10, (0.3,), (0.4,))
THREAT = {"threat": {"norm": "linf", "eps": 0.1}, "attack": {"steps": 3}}


def objective(**options: Any) -> Objective:
    """The objective that the configuration would name."""
    tree = small().model_dump(mode="json")
    tree["experts"]["robust"]["objective"] = options
    from generalist.config import check

    found = check(tree).experts["robust"].objective
    assert isinstance(found, Objective)
    return found


@pytest.fixture
def learner() -> Learner:
    """A small network with its initial weights."""
    options = small().model
    model = build(options, SHAPE)
    model.load_state_dict(engine.initial_weights(options, SHAPE, 0))
    return Learner(model.train(), engine.AttackNetwork(model, EngineOptions()))


@pytest.fixture
def batch() -> Batch:
    """Twelve random images."""
    draw = torch.Generator().manual_seed(1)
    labels = torch.randint(10, (12,), generator=draw)
    return Batch(torch.rand(12, 1, 8, 8, generator=draw), labels, torch.arange(12))


def loss(own: Objective, learner: Learner, batch: Batch, seed: int = 0) -> Loss:
    """Its loss with fresh random numbers."""
    return own.loss(learner, batch, torch.Generator().manual_seed(seed))


def test_natural_is_the_mean_cross_entropy(learner: Learner, batch: Batch) -> None:
    """And the logits are those of the clean images."""
    found = loss(objective(name="natural"), learner, batch)
    logits = learner.model(batch.images)
    torch.testing.assert_close(found.value, F.cross_entropy(logits, batch.labels))
    torch.testing.assert_close(found.logits, logits)


def test_label_smoothing_is_torchs(learner: Learner, batch: Batch) -> None:
    """The share goes to the other classes."""
    found = loss(objective(name="natural", label_smoothing=0.1), learner, batch)
    expected = F.cross_entropy(learner.model(batch.images), batch.labels, label_smoothing=0.1)
    torch.testing.assert_close(found.value, expected)


def test_adversarial_is_worse_than_natural_and_tends_to_it_with_eps(learner: Learner, batch: Batch) -> None:
    """The attacked loss is above the clean one; with a vanishing ball it is the clean one."""
    clean = loss(objective(name="natural"), learner, batch).value
    attacked = loss(objective(name="adversarial", **THREAT), learner, batch).value
    tiny = objective(name="adversarial", threat={"norm": "linf", "eps": 1e-6}, attack={"steps": 3})
    assert attacked > clean + 1e-3
    torch.testing.assert_close(loss(tiny, learner, batch).value, clean, atol=1e-4, rtol=0)


def test_trades_without_its_penalty_is_natural(learner: Learner, batch: Batch) -> None:
    """beta = 0."""
    clean = loss(objective(name="natural"), learner, batch).value
    torch.testing.assert_close(loss(objective(name="trades", beta=0, **THREAT), learner, batch).value, clean)


def test_trades_is_linear_in_beta_and_its_penalty_is_a_divergence(learner: Learner, batch: Batch) -> None:
    """L(beta) = CE + beta KL with KL > 0 at the attacked images."""
    values = [loss(objective(name="trades", beta=beta, **THREAT), learner, batch).value for beta in (0, 1, 6)]
    penalty = values[1] - values[0]
    assert penalty > 1e-4
    torch.testing.assert_close(values[2] - values[0], 6 * penalty, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["natural", "adversarial", "trades"])
def test_a_loss_depends_on_its_own_random_numbers_alone(learner: Learner, batch: Batch, name: str) -> None:
    """The same generator gives the same loss; gradients reach every weight, and only of the trained model."""
    own = objective(name=name, **({} if name == "natural" else THREAT))
    first, again = loss(own, learner, batch), loss(own, learner, batch)
    assert torch.equal(first.value, again.value)
    first.value.backward()
    assert all(parameter.grad is not None for parameter in learner.model.parameters())
    assert learner.model.training
