"""Objectives: their losses at points where they are known, and what each one keeps."""

import copy
import dataclasses
import math

import pytest
import torch
from torch.nn import functional as F

from generalist.config.section import part_names
from generalist.models import Classifier
from generalist.objectives import Learner, Loss, Objective
from generalist.randomness import normal_like
from generalist.tensors import Batch, Images
from generalist.threats import threat_from
from tests.objective_factory import (
    SHAPE,
    THREAT,
    centres,
    context,
    every_option,
    new_learner,
    objective,
    random_batch,
    with_conditions,
)


@pytest.fixture
def learner(request: pytest.FixtureRequest) -> Learner:
    """A small network with its initial weights; conditional where a test's objective needs it."""
    own = request.getfixturevalue("any_objective") if "any_objective" in request.fixturenames else None
    return new_learner(own)


@pytest.fixture
def batch() -> Batch:
    """Twelve random images."""
    return random_batch()


def loss(own: Objective, learner: Learner, batch: Batch, seed: int = 0) -> Loss:
    """Its loss with fresh random numbers."""
    step = context(own, seed)
    batch = with_conditions(own, step, learner, batch)
    return own.loss(step, learner, batch, own.attacked(step, learner, batch))


def test_natural_is_the_mean_cross_entropy(learner: Learner, batch: Batch) -> None:
    """And the logits are those of the clean images."""
    result = loss(objective(name="natural"), learner, batch)
    logits = learner.model(batch.images)
    torch.testing.assert_close(result.value, F.cross_entropy(logits, batch.labels))
    torch.testing.assert_close(result.logits, logits)


def test_label_smoothing_is_torchs(learner: Learner, batch: Batch) -> None:
    """The share goes to the other classes."""
    result = loss(objective(name="natural", label_smoothing=0.1), learner, batch)
    expected = F.cross_entropy(learner.model(batch.images), batch.labels, label_smoothing=0.1)
    torch.testing.assert_close(result.value, expected)


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
    powers = [math.exp(logit - max(logits)) for logit in logits]
    return [own / sum(powers) for own in powers]


@pytest.mark.parametrize("beta", [0, 1, 5])
def test_mart_is_its_formula(learner: Learner, batch: Batch, beta: int) -> None:
    """BCE on the attacked image, and the divergence weighed by how doubtful the clean one is."""
    own = objective(name="mart", beta=beta, **THREAT)
    model = learner.model.eval()  # as the slow formula takes images one by one
    attacked = own.attacked(context(), learner, batch)
    assert (attacked - batch.images).abs().max() <= 0.1 + 1e-6
    expected = slow_mart(model, batch, attacked, beta)
    assert own.loss(context(), learner, batch, attacked).value.item() == pytest.approx(expected, rel=2e-4)


def slow_features(model: Classifier, images: Images) -> torch.Tensor:
    """Return penultimate features of the small network as its two convolutions are written, in float64."""
    weights = {name: own.double() for name, own in model.state_dict().items()}
    hidden = F.pixel_unshuffle((images.double() - model.mean.double()) / model.std.double(), 2)
    for layer in ("conv1", "conv2"):
        hidden = F.conv2d(hidden, weights[f"{layer}.weight"], weights[f"{layer}.bias"], padding=1).relu()
    return hidden.flatten(1)


def slow_anchored(learner: Learner, batch: Batch, start: Images, *, eps: float, steps: int) -> tuple[Images, float]:
    """Return attacked images and loss of the manuscript, image by image in float64: Linf, steps of 2.5 eps / steps."""
    assert learner.teacher is not None
    student, teacher = learner.model, learner.teacher.network

    def distance(image: Images, i: int) -> torch.Tensor:
        anchor = slow_features(teacher, batch.images[i : i + 1])
        return ((slow_features(student, image) - anchor) ** 2).sum()

    def gradient(image: Images, i: int) -> Images:
        leaf = image.detach().requires_grad_()
        return torch.autograd.grad(distance(leaf, i), leaf)[0]

    images = batch.images.double().split(1)
    steep = [gradient(image, i).norm().item() for i, image in enumerate(images)]
    clipped = [min(max(sum(steep) / len(steep) / own, 0.5), 1.5) for own in steep]
    points, total = [], 0.0
    for i, (image, own) in enumerate(zip(images, clipped, strict=True)):
        radius = eps * own / (sum(clipped) / len(clipped))
        point = (image + (start[i : i + 1].double() - image).clamp(-radius, radius)).clamp(0, 1)
        for _ in range(steps):
            point = point + 2.5 * radius / steps * gradient(point, i).sign()
            point = (image + (point - image).clamp(-radius, radius)).clamp(0, 1)
        points.append(point)
        total += distance(point, i).item()
    return torch.cat(points), total / len(batch)


def test_anchored_is_its_formula(learner: Learner, batch: Batch) -> None:
    """Features of the attacked image against the teacher's of the clean one, within a ball of the image's own."""
    own, step = objective(name="anchored", **THREAT), context()
    start = batch.images + normal_like(batch.images, std=0.001, generator=torch.Generator().manual_seed(0))
    expected, value = slow_anchored(learner, batch, start, eps=0.1, steps=3)
    attacked = own.attacked(step, learner, batch)
    far = (attacked - expected).abs() > 1e-5
    assert far.float().mean() < 0.01  # where a sign hangs on rounding
    assert own.loss(step, learner, batch, expected.float()).value.item() == pytest.approx(value, rel=1e-4)
    assert own.loss(step, learner, batch, attacked).value.item() == pytest.approx(value, rel=1e-2)
    moved = (attacked - batch.images).abs().flatten(1).amax(1)
    assert 0.05 - 1e-6 <= moved.min() < 0.1 < moved.max() <= 0.3


def test_a_student_that_is_its_teacher_takes_the_whole_ball(learner: Learner, batch: Batch) -> None:
    """Its gradients are 0: every image has the same share, and its loss begins at 0."""
    own, same = objective(name="anchored", **THREAT), dataclasses.replace(learner, teacher=learner.frozen)
    attacked = own.attacked(context(), same, batch)
    assert ((attacked - batch.images).abs().flatten(1).amax(1) <= 0.1).all()
    learner.model.eval()
    assert own.loss(context(), same, batch, batch.images).value.item() == 0


# --- what every objective keeps -----------------------------------------------------------------------


@pytest.fixture(params=part_names("objectives"))
def any_objective(request: pytest.FixtureRequest) -> Objective:
    """Each that there is, with its defaults where it has them."""
    return objective(**every_option(request.param))


BEYOND = {"anchored", "n_fgsm"}
"""Those whose balls are of their own sizes, or none."""


def test_a_step_depends_on_its_own_random_numbers_alone(
    learner: Learner, batch: Batch, any_objective: Objective
) -> None:
    """The same generator gives the same loss; gradients reach every weight, and only of the trained model."""
    begun = copy.deepcopy(learner.model.state_dict())
    first = loss(any_objective, learner, batch)
    first.value.backward()
    trained = [name for name, parameter in learner.model.named_parameters() if parameter.grad is not None]
    learner.model.load_state_dict(begun)  # statistics, which attacks see, have moved
    again = loss(any_objective, learner, batch)
    assert torch.equal(first.value, again.value)
    last = () if any_objective.needs == {"teacher", "start_from"} else ("linear.weight", "linear.bias")
    assert {*trained, "linear.weight", "linear.bias"} == {name for name, _ in learner.model.named_parameters()}
    assert set(last) <= set(trained)
    assert learner.model.training


def test_gradients_of_attacks_are_counted(learner: Learner, batch: Batch, any_objective: Objective) -> None:
    """As estimates need them: images that are asked for a gradient, over those of the batch."""
    asked: list[int] = []
    learner.frozen.register_forward_pre_hook(
        lambda _, given: asked.append(len(given[0]) * given[0].requires_grad)  # type: ignore[func-returns-value]
    )
    step = context(any_objective)
    batch = with_conditions(any_objective, step, learner, batch)
    any_objective.attacked(step, learner, batch)
    said = any_objective.gradients_per_image
    assert sum(asked) == said * len(batch) if batch.condition is None else 0 < sum(asked) <= said * len(batch)


def test_attacked_images_are_allowed_and_without_a_threat_clean(
    learner: Learner, batch: Batch, any_objective: Objective
) -> None:
    """Within the ball and the pixel range; the loss may be asked for again and says the same."""
    step = context(any_objective)
    batch = with_conditions(any_objective, step, learner, batch)
    attacked = any_objective.attacked(step, learner, batch)
    threats = any_objective.trains_against
    if not threats:
        assert attacked is batch.images
    else:
        each = attacked.unbind(1) if any_objective.attacks_per_image > 1 else [attacked]
        for threat, images in zip(threats, each, strict=True):
            around = centres(any_objective, batch)
            if any_objective.name not in BEYOND:
                torch.testing.assert_close(threat_from(threat).project(images, around), images)
            assert not torch.equal(images, around)
        assert attacked.amin() >= 0
        assert attacked.amax() <= 1
    assert not attacked.requires_grad
    learner.model.eval()
    once, twice = (any_objective.loss(step, learner, batch, attacked).value for _ in range(2))
    assert torch.equal(once, twice)


def test_the_loss_is_a_mean_over_images(learner: Learner, batch: Batch, any_objective: Objective) -> None:
    """Without BatchNorm in training, that of a batch is the mean of those of its images."""
    learner.model.eval()
    if learner.auxiliary is not None:
        learner.auxiliary.eval()
    step = context(any_objective)
    batch = with_conditions(any_objective, step, learner, batch)
    attacked = any_objective.attacked(step, learner, batch)
    pairs = [any_objective.loss(step, learner, batch.rows(slice(i, None, 6)), attacked[i::6]) for i in range(6)]
    mean = torch.stack([pair.value for pair in pairs]).mean()
    torch.testing.assert_close(any_objective.loss(step, learner, batch, attacked).value, mean, rtol=1e-4, atol=1e-5)
    assert torch.cat([own.logits for own in pairs]).shape == (len(batch), SHAPE.classes)
