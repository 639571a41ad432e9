"""Objectives against their formulas, written from their sources alone and computed in float64."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from generalist.errors import BadInput
from generalist.models import Classifier
from generalist.objectives import Learner
from generalist.tensors import Batch
from tests.objective_factory import THREAT, check_formula, context, new_learner, objective, random_batch
from tests.training_factory import small


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


Slope = Callable[[Tensor, int], Tensor]
"""What an attack raises, of an image as a batch of one, and which image it is."""


def slow_pgd(images: Tensor, start: Tensor, raised: Slope, radii: Tensor) -> Tensor:
    """Return points of PGD in Linf, image by image in float64: three steps of 2.5 radii / 3."""
    points = []
    for i, (image, point, radius) in enumerate(zip(images.double(), start.double(), radii.tolist(), strict=True)):
        here = (image + (point - image).clamp(-radius, radius)).clamp(0, 1)
        for _ in range(3):
            leaf = here[None].requires_grad_()
            here = here.detach() + 2.5 * radius / 3 * input_slope(raised(leaf, i), leaf)[0]
            here = (image + (here - image).clamp(-radius, radius)).clamp(0, 1)
        points.append(here.detach())
    return torch.stack(points)


def class_accuracies(model: Classifier, points: Tensor, labels: Tensor) -> Tensor:
    """Return the share of each class that is right; 0 where there is none."""
    right = model(points.double()).argmax(1) == labels
    return torch.tensor([float(right[labels == k].double().mean()) if (labels == k).any() else 0 for k in range(10)])


@pytest.fixture
def half_right(learner: Learner, batch: Batch) -> Batch:
    """Five classes, of which the network is right about some images, attacked or not."""
    said = learner.frozen(batch.images).argmax(1)
    return dataclasses.replace(batch, labels=torch.where(torch.arange(12) < 6, said, batch.labels % 5))


def two_epochs(own: Any, learner: Learner, batch: Batch, progress: float = 0.5) -> tuple[Any, Tensor, Tensor]:
    """Attack in epoch 0 and again in epoch 1: that step, and the images of both."""
    tables = own.tables(10, 12)
    first = own.attacked(context(seed=1, tables=tables, progress=progress), learner, batch)
    step = context(tables=tables, epoch=1, progress=progress)
    return step, first, own.attacked(step, learner, batch)


def test_cfa_is_pgd_at_within_radii_by_class(learner: Learner, half_right: Batch) -> None:
    """(0.5 + t) eps, t the class's robust accuracy in the epoch before; the first epoch has eps."""
    own, model, labels = objective(name="cfa", **THREAT), copy.deepcopy(learner.model).double(), half_right.labels
    step, first, attacked = two_epochs(own, learner, half_right)
    plain = objective(name="adversarial", **THREAT).attacked(context(seed=1), learner, half_right)
    torch.testing.assert_close(first, plain)
    radii = 0.1 * (0.5 + class_accuracies(model, first, labels)[labels])
    assert radii.unique().numel() > 1
    draw = torch.Generator().manual_seed(0)
    start = half_right.images + torch.empty(12, 1, 8, 8).uniform_(-1, 1, generator=draw) * radii.view(-1, 1, 1, 1)

    def raised(leaf: Tensor, i: int) -> Tensor:
        return -model(leaf).log_softmax(1)[:, labels[i]]

    expected = slow_pgd(half_right.images, start, raised, radii)
    assert ((attacked - expected).abs() > 1e-5).float().mean() < 0.01

    def slow(model: Classifier) -> Tensor:
        return -model(attacked.double()).log_softmax(1)[torch.arange(12), labels].mean()

    check_formula(own, step, learner, half_right, attacked, slow)
    early = two_epochs(own, learner, half_right, progress=0.04)[2]
    torch.testing.assert_close(early, objective(name="adversarial", **THREAT).attacked(context(), learner, half_right))


def test_cfa_on_trades_weighs_the_divergence_by_class(learner: Learner, half_right: Batch) -> None:
    """(CE + b KL) / (1 + b) with b = (0.5 + t) beta, within (0.3 + t) eps."""
    own, model, labels = (
        objective(name="cfa_trades", **THREAT),
        copy.deepcopy(learner.model).double(),
        half_right.labels,
    )
    step, first, attacked = two_epochs(own, learner, half_right)
    robust = class_accuracies(model, first, labels)[labels]
    draw = torch.Generator().manual_seed(0)
    start = half_right.images + torch.empty(12, 1, 8, 8).normal_(0, 0.001, generator=draw)
    clean = model(half_right.images.double()).softmax(1).detach()

    def raised(leaf: Tensor, i: int) -> Tensor:
        return slow_kl(clean[i : i + 1], model(leaf).softmax(1))

    expected = slow_pgd(half_right.images, start, raised, 0.1 * (0.3 + robust))
    assert ((attacked - expected).abs() > 1e-5).float().mean() < 0.01

    def slow(model: Classifier) -> Tensor:
        p, q = (model(x.double()).softmax(1) for x in (half_right.images, attacked))
        weight = 6 * (0.5 + robust.double())
        return ((-p[torch.arange(12), labels].log() + weight * slow_kl(p, q)) / (1 + weight)).mean()

    check_formula(own, step, learner, half_right, attacked, slow)


def test_fair_tat_aims_at_what_images_were_taken_for(learner: Learner, half_right: Batch) -> None:
    """PGD towards a class, within radii by class; classes that errors went to are drawn by softmax(2 s)."""
    own, model, labels = objective(name="fair_tat", **THREAT), copy.deepcopy(learner.model).double(), half_right.labels
    step, first, attacked = two_epochs(own, learner, half_right)
    said = model(first.double()).argmax(1)
    wrong = said[said != labels]
    shares = torch.bincount(wrong, minlength=10) / max(len(wrong), 1)
    torch.testing.assert_close(step.tables["confusing"], shares)
    radii = 0.1 * (0.5 + class_accuracies(model, first, labels)[labels])
    draw = torch.Generator().manual_seed(0)
    odds = (2 * shares).exp().expand(12, -1).scatter(1, labels[:, None], 0.0)
    targets = (torch.empty(12, 10).exponential_(generator=draw) / odds).argmin(1)
    assert not (targets == labels).any()
    start = half_right.images + torch.empty(12, 1, 8, 8).uniform_(-1, 1, generator=draw) * radii.view(-1, 1, 1, 1)

    def raised(leaf: Tensor, i: int) -> Tensor:
        return model(leaf).log_softmax(1)[:, targets[i]]

    expected = slow_pgd(half_right.images, start, raised, radii)
    assert ((attacked - expected).abs() > 1e-5).float().mean() < 0.01

    def slow(model: Classifier) -> Tensor:
        return -model(attacked.double()).log_softmax(1)[torch.arange(12), labels].mean()

    check_formula(own, step, learner, half_right, attacked, slow)


def test_fair_tat_draws_by_the_odds() -> None:
    """Of 20,000 draws each class has its share, within five deviations; never the label."""
    own: Any = objective(name="fair_tat", sharpness=3, **THREAT)
    tables = own.tables(10, 20_000) | {"confusing": torch.tensor([0.5, 0.3, 0.2] + [0.0] * 7)}
    labels = torch.zeros(20_000, dtype=torch.int64)
    many = Batch(torch.zeros(20_000, 1, 1, 1), labels, labels)
    drawn = torch.bincount(own.targets(context(tables=tables), many), minlength=10) / 20_000
    odds = (3 * tables["confusing"]).exp()
    odds[0] = 0
    torch.testing.assert_close(drawn, odds / odds.sum(), atol=0.018, rtol=0)


def test_a_calibration_beyond_one_is_refused() -> None:
    """The sentence says what it is."""
    with pytest.raises(BadInput, match="'calibrated' must lie between 0 and 1: at 0 all classes have eps"):
        small("experts.robust.objective={name: cfa, calibrated: 2, threat: {norm: linf, eps: 0.1}}")


def test_consistency_is_its_formula(learner: Learner, batch: Batch) -> None:
    """The mean cross-entropy of both views, attacked, and their divergence at temperature 1/2."""
    own, plain = objective(name="consistency", weight=3, **THREAT), objective(name="adversarial", **THREAT)
    step = context()
    attacked, other = own.attacked(step, learner, batch), context()
    for found, view in zip(attacked.chunk(2), batch.views(), strict=True):
        assert torch.equal(found, plain.attacked(other, learner, view))

    def slow(model: Classifier) -> Tensor:
        logits = [model(images.double()) for images in attacked.chunk(2)]
        wrong = [-z.log_softmax(1)[torch.arange(12), batch.labels].mean() for z in logits]
        p, q = ((z / 0.5).softmax(1) for z in logits)
        apart = (slow_kl(p, (p + q) / 2) + slow_kl(q, (p + q) / 2)) / 2
        return (wrong[0] + wrong[1]) / 2 + 3 * apart.mean()

    check_formula(own, step, learner, batch, attacked, slow)


def test_two_views_need_an_augmentation() -> None:
    """Else both would be the image itself."""
    config = ("mixing=null", "deploy=expert:robust", "experts.robust.augment=[]")
    with pytest.raises(BadInput, match=r"experts\.robust\.augment is needed by the objective consistency: give it"):
        small(*config, "experts.robust.objective={name: consistency, threat: {norm: linf, eps: 0.1}}")


def test_rst_is_trades_on_both_kinds_of_images(learner: Learner, batch: Batch) -> None:
    """Images without labels have what the teacher says of them, and a weight of their own."""
    own, plain = objective(name="rst", beta=4, weight=0.5, **THREAT), objective(name="trades", **THREAT)
    assert batch.unlabelled is not None and learner.teacher is not None
    step, other = context(), context()
    attacked = own.attacked(step, learner, batch)
    for found, images in zip(attacked.chunk(2), (batch.images, batch.unlabelled), strict=True):
        assert torch.equal(found, plain.attacked(other, learner, dataclasses.replace(batch, images=images)))
    said = copy.deepcopy(learner.teacher.network).double()(batch.unlabelled.double()).argmax(1)

    def slow(model: Classifier) -> Tensor:
        assert batch.unlabelled is not None
        total = torch.zeros((), dtype=torch.float64)
        kinds = ((batch.images, batch.labels, 1), (batch.unlabelled, said, 0.5))
        for (images, labels, weight), moved in zip(kinds, attacked.chunk(2), strict=True):
            p, q = (model(x.double()).softmax(1) for x in (images, moved))
            total = total + weight * (-p[torch.arange(12), labels].log() + 4 * slow_kl(p, q)).mean()
        return total

    check_formula(own, step, learner, batch, attacked, slow)
