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


def input_slope(value: Tensor, leaf: Tensor) -> Tensor:
    """Return the sign of the gradient of a sum over images."""
    return torch.autograd.grad(value.sum(), leaf)[0].sign()


@pytest.mark.parametrize(("progress", "weight"), [(0.0, 10), (0.85, 10), (0.86, 40)])
def test_gat_is_its_formula(learner: Learner, batch: Batch, progress: float, weight: int) -> None:
    """One step of eps from signs of eps / 2; half of the images, drawn anew, are attacked without the relaxation."""
    own, step = objective(name="gat", threat=THREAT["threat"]), context(progress=progress)
    draw, model, rows = torch.Generator().manual_seed(0), copy.deepcopy(learner.model).double(), torch.arange(12)
    start = batch.images + 0.05 * torch.empty(12, 1, 8, 8).uniform_(-1, 1, generator=draw).sign()
    guided = torch.empty(12, 1).uniform_(-1, 1, generator=draw)[:, 0] < 0
    assert 0 < guided.sum() < 12
    clean = model(batch.images.double()).softmax(1).detach()
    leaf = start.clamp(0, 1).double().requires_grad_()
    p = model(leaf).softmax(1)
    slope = input_slope(-p[rows, batch.labels].log() + weight * guided * (p - clean).square().sum(1), leaf)
    images = batch.images.double()
    expected = (images + (leaf.detach() + 0.1 * slope - images).clamp(-0.1, 0.1)).clamp(0, 1)
    attacked = own.attacked(step, learner, batch)
    assert ((attacked - expected).abs() > 1e-5).float().mean() < 0.01

    def slow(model: Classifier) -> Tensor:
        p, q = (model(x.double()).softmax(1) for x in (batch.images, attacked))
        return (-p[rows, batch.labels].log() + weight * (p - q).square().sum(1)).mean()

    check_formula(own, step, learner, batch, attacked, slow)


@pytest.mark.parametrize(("noise", "length"), [(2, 1), (0, 1), (1, 1.25)])
def test_n_fgsm_is_a_step_from_noise_that_stays(learner: Learner, batch: Batch, noise: int, length: float) -> None:
    """Up to noise + step from the image, cut at the pixel range alone; without noise it is FGSM."""
    own = objective(name="n_fgsm", threat=THREAT["threat"], noise=noise, step=length)
    draw, model, rows = torch.Generator().manual_seed(0), copy.deepcopy(learner.model).double(), torch.arange(12)
    offset = torch.empty(12, 1, 8, 8).uniform_(-0.1 * noise, 0.1 * noise, generator=draw)
    leaf = (batch.images + offset).clamp(0, 1).double().requires_grad_()
    slope = input_slope(-model(leaf).log_softmax(1)[rows, batch.labels], leaf)
    attacked = own.attacked(context(), learner, batch)
    expected = (leaf.detach() + 0.1 * length * slope).clamp(0, 1)
    assert ((attacked - expected).abs() > 1e-5).float().mean() < 0.01
    farthest = (attacked - batch.images).abs().max()
    assert 0.1 * max(length, noise) - 1e-6 <= farthest <= 0.1 * (noise + length) + 1e-6
    if noise == 0:
        plain = objective(name="adversarial", threat=THREAT["threat"], attack={"name": "fgsm"})
        torch.testing.assert_close(attacked, plain.attacked(context(), learner, batch))
