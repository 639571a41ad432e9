"""Objectives: their losses at points where they are known, and what each one keeps."""

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from generalist import engine
from generalist.config import EngineOptions
from generalist.config.section import part, part_names
from generalist.models import Classifier, build
from generalist.objectives import Learner, Loss, Objective
from generalist.tensors import Batch, Images, ImageShape
from generalist.threats import threat_from
from tests.training_factory import small

SHAPE = ImageShape(1, 8, 8, 10, (0.3,), (0.4,))
THREAT = {"threat": {"norm": "linf", "eps": 0.1}, "attack": {"steps": 3}}


def objective(**options: Any) -> Objective:
    """Return the objective that the configuration would name."""
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
    attacked = own.attacked(learner, batch, torch.Generator().manual_seed(seed))
    return own.loss(learner.model, batch, attacked)


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


def slow_mart(model: Classifier, batch: Batch, attacked: Images, beta: float) -> float:
    """Return the loss of Wang et al. as it is written, an image at a time, in Python's own float64."""
    total = 0.0
    with torch.no_grad():
        both = [model(images).double().tolist() for images in (batch.images, attacked)]
    for clean, other, label in zip(*both, batch.labels.tolist(), strict=True):
        p, q = softmax(clean), softmax(other)
        boosted = -math.log(q[label]) - math.log(1 - max(own for k, own in enumerate(q) if k != label))
        moved = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        total += boosted + beta * moved * (1 - p[label])
    return total / len(batch)


def softmax(logits: list[float]) -> list[float]:
    """Probabilities."""
    powers = [math.exp(own - max(logits)) for own in logits]
    return [own / sum(powers) for own in powers]


@pytest.mark.parametrize("beta", [0, 1, 5])
def test_mart_is_its_formula(learner: Learner, batch: Batch, beta: int) -> None:
    """BCE on the attacked image, and the divergence weighed by how doubtful the clean one is."""
    own = objective(name="mart", beta=beta, **THREAT)
    model = learner.model.eval()  # as the slow formula takes images one by one
    attacked = own.attacked(learner, batch, torch.Generator().manual_seed(0))
    assert (attacked - batch.images).abs().max() <= 0.1 + 1e-6
    expected = slow_mart(model, batch, attacked, beta)
    assert own.loss(model, batch, attacked).value.item() == pytest.approx(expected, rel=2e-4)


# --- what every objective keeps -----------------------------------------------------------------------


@pytest.fixture(params=part_names("objectives"))
def any_objective(request: pytest.FixtureRequest) -> Objective:
    """Each that there is, with its defaults where it has them."""
    needs = part("objectives", request.param, Objective).model_fields
    return objective(name=request.param, **{key: value for key, value in THREAT.items() if key in needs})


def test_a_step_depends_on_its_own_random_numbers_alone(
    learner: Learner, batch: Batch, any_objective: Objective
) -> None:
    """The same generator gives the same loss; gradients reach every weight, and only of the trained model."""
    first, again = loss(any_objective, learner, batch), loss(any_objective, learner, batch)
    assert torch.equal(first.value, again.value)
    first.value.backward()
    assert all(parameter.grad is not None for parameter in learner.model.parameters())
    assert learner.model.training


def test_attacked_images_are_allowed_and_without_a_threat_clean(
    learner: Learner, batch: Batch, any_objective: Objective
) -> None:
    """Within the ball and the pixel range; the loss may be asked for again and says the same."""
    attacked = any_objective.attacked(learner, batch, torch.Generator().manual_seed(0))
    if any_objective.trains_against is None:
        assert attacked is batch.images
    else:
        threat = threat_from(any_objective.trains_against)
        torch.testing.assert_close(threat.project(attacked, batch.images), attacked)
        assert not torch.equal(attacked, batch.images)
    assert not attacked.requires_grad
    model = learner.model.eval()
    once, twice = (any_objective.loss(model, batch, attacked).value for _ in range(2))
    assert torch.equal(once, twice)


def test_the_loss_is_a_mean_over_images(learner: Learner, batch: Batch, any_objective: Objective) -> None:
    """Without BatchNorm in training, that of a batch is the mean of those of its images."""
    model = learner.model.eval()
    attacked = any_objective.attacked(learner, batch, torch.Generator().manual_seed(0))
    singles = [
        any_objective.loss(model, Batch(batch.images[i : i + 1], batch.labels[i : i + 1], batch.ids[i : i + 1]), image)
        for i, image in enumerate(attacked.split(1))
    ]
    mean = torch.stack([own.value for own in singles]).mean()
    torch.testing.assert_close(any_objective.loss(model, batch, attacked).value, mean, rtol=1e-4, atol=1e-5)
    assert torch.cat([own.logits for own in singles]).shape == (len(batch), SHAPE.classes)
