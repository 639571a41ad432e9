"""Objectives against their formulas, written from their sources alone and computed in float64."""

import copy
import dataclasses

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from generalist.models import Classifier
from generalist.objectives import Learner
from generalist.tensors import Batch
from tests.objective_factory import THREAT, check_formula, context, new_learner, objective, random_batch


@pytest.fixture
def learner() -> Learner:
    """A small network with its initial weights."""
    return new_learner()


@pytest.fixture
def batch() -> Batch:
    """Twelve random images."""
    return random_batch()


def slow_kl(p: Tensor, q: Tensor) -> Tensor:
    """Return KL(p || q) of each row of probabilities."""
    return (p * (p / q).log()).sum(1)


@pytest.mark.parametrize(("progress", "beta"), [(0.0, 0.0), (0.5, 0.0), (0.525, 1.0), (0.9, 1.0)])
def test_rebat_is_pgd_at_and_the_divergence_from_its_average(
    learner: Learner, batch: Batch, progress: float, beta: float
) -> None:
    """From epoch 105 of 200 on, if nothing else is said."""
    own, step = objective(name="rebat", **THREAT), context(progress=progress)
    attacked = own.attacked(step, learner, batch)
    assert torch.equal(attacked, objective(name="adversarial", **THREAT).attacked(context(), learner, batch))

    def slow(model: Classifier) -> Tensor:
        assert learner.average is not None
        p = model(attacked.double()).softmax(1)
        steady = copy.deepcopy(learner.average.network).double()(attacked.double()).softmax(1).detach()
        return -p[torch.arange(len(p)), batch.labels].log().mean() + beta * slow_kl(steady, p).mean()

    check_formula(own, step, learner, batch, attacked, slow)


def slow_friendly(learner: Learner, batch: Batch, start: Tensor, *, eps: float, steps: int, tau: int) -> Tensor:
    """Return the images of Zhang et al. as their algorithm 1 is written, one by one in float64; Linf."""
    model, points = copy.deepcopy(learner.model).double(), []
    for image, point, label in zip(batch.images.double(), start.double(), batch.labels, strict=True):
        left = tau
        for _ in range(steps):
            leaf = point[None].requires_grad_()
            logits = model(leaf)
            if logits.argmax() != label:
                if left == 0:
                    break
                left -= 1
            (slope,) = torch.autograd.grad(F.cross_entropy(logits, label[None]), leaf)
            moved = leaf.detach()[0] + 2.5 * eps / steps * slope[0].sign()
            point = (image + (moved - image).clamp(-eps, eps)).clamp(0, 1)
        points.append(point.detach())
    return torch.stack(points)


@pytest.mark.parametrize("tau", [0, 1, 2, 5])
def test_fat_stops_each_image_tau_steps_after_its_misclassification(learner: Learner, batch: Batch, tau: int) -> None:
    """With tau = steps nothing stops; half of the labels are what the network says, so that some are far from it."""
    said = learner.frozen(batch.images).argmax(1)
    batch = dataclasses.replace(batch, labels=torch.where(torch.arange(12) % 2 == 0, said, batch.labels))
    attack = {"steps": 5, "random_start": False}
    own = objective(name="fat", tau=tau + 0.5, threat=THREAT["threat"], attack=attack)
    attacked = own.attacked(context(), learner, batch)
    expected = slow_friendly(learner, batch, batch.images.clone(), eps=0.1, steps=5, tau=tau)
    assert ((attacked - expected).abs() > 1e-5).float().mean() < 0.01  # where a sign hangs on rounding
    plain = objective(name="adversarial", threat=THREAT["threat"], attack=attack).attacked(context(), learner, batch)
    stopped = (attacked != plain).flatten(1).any(1)
    assert stopped.any() == (tau < 5)

    def slow(model: Classifier) -> Tensor:
        return -model(attacked.double()).log_softmax(1)[torch.arange(12), batch.labels].mean()

    check_formula(own, context(), learner, batch, attacked, slow)


@pytest.mark.parametrize(("progress", "tau"), [(0.0, 0), (49 / 120, 0), (50 / 120, 1), (89 / 120, 1), (0.75, 2)])
def test_fat_is_patient_from_the_published_epochs_on(learner: Learner, batch: Batch, progress: float, tau: int) -> None:
    """0 up to epoch 50 of 120, 1 up to 90, then 2."""
    default, fixed = (objective(name="fat", **options, **THREAT) for options in ({}, {"tau": tau}))
    found = default.attacked(context(progress=progress), learner, batch)
    assert torch.equal(found, fixed.attacked(context(), learner, batch))
