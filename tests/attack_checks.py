"""Checks that an attack does what it should, for tests with attacks that do not."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from generalist.attacks import autoattack
from generalist.attacks.attack_target import AttackTarget
from generalist.attacks.evaluation_state import EvaluationState
from generalist.attacks.losses import targeted_margin
from generalist.randomness import ImageStreams
from generalist.threats import Threat
from tests.exact_linear import NORMS, exact_distances, level_images
from tests.strategies import Recorder, generator, linear_net

# The package names these functions as their modules are named, so that their mistakes are made here.
apgd, fab, square, runs = (import_module(f"generalist.attacks.{name}") for name in ("apgd", "fab", "square", "runs"))


def height(points: Tensor) -> Tensor:
    """Return a landscape over one pixel, with a summit at 0.7 and small waves; its slope is never zero for long."""
    return -(points - 0.7).abs() + 0.02 * (60 * points).sin()


def published_summit(start: float, steps: int) -> float:
    """Return the highest loss that APGD sees, as described (Croce and Hein 2020, algorithm 1): image 0.5, eps 0.4."""

    def look(place: float) -> tuple[float, float]:
        leaf = torch.tensor(place, dtype=torch.float64, requires_grad=True)
        loss = height(leaf)
        return loss.item(), float(torch.autograd.grad(loss, leaf)[0].sign())

    def project(place: float) -> float:
        return min(max(place, 0.1), 0.9)

    loss, sign = look(start)
    point = older = best = start
    summit, summit_sign, checked, halved, size = loss, sign, loss, True, 0.8
    before, rises, since, window = 0.0, 0, 0, max(int(0.22 * steps), 1)
    for step in range(steps):
        share = 0.75 if step else 1.0
        ahead = project(point + size * sign)
        older, point = point, project(point + share * (ahead - point) + (1 - share) * (point - older))
        loss, sign = look(point)
        rises, since, before = rises + (loss > before), since + 1, loss
        if loss > summit:
            best, summit, summit_sign = point, loss, sign
        if since == window:
            halved = rises <= 0.75 * window or (not halved and checked >= summit)
            if halved:
                size, point, sign = size / 2, best, summit_sign
            checked, rises, since = summit, 0, 0
            window = max(window - max(int(0.03 * steps), 1), int(0.06 * steps), 1)
    return summit


def takes_the_published_steps() -> None:
    """On a hilly landscape of one pixel, from several starts: to the summits of the description."""
    starts = torch.linspace(0.12, 0.88, 8, dtype=torch.float64)
    images, labels = torch.full((8, 1, 1, 1), 0.5, dtype=torch.float64), torch.zeros(8, dtype=torch.int64)
    run = apgd.apgd(
        lambda points: torch.cat([height(points.flatten(1)), torch.zeros(len(points), 1).double()], dim=1),
        images,
        labels,
        Threat("linf", 0.4),
        start=starts.view(-1, 1, 1, 1),
        loss=lambda logits, _: logits[:, 0],
        steps=60,
        stop_when_broken=False,
    )
    summits = torch.tensor([published_summit(start, 60) for start in starts.tolist()])
    assert (run.best_loss - summits).abs().max() < 1e-6


@dataclass(frozen=True)
class Level:
    """A linear model, and images that are all equally far from their boundaries."""

    network: torch.nn.Module
    images: Tensor
    labels: Tensor
    eps: float


@functools.cache
def level(norm: str, classes: int) -> Level:
    """Eight images of five by four pixels."""
    numbers = generator(classes)
    weights, bias = torch.randn(classes, 20, generator=numbers), torch.randn(classes, generator=numbers) / 10
    network = linear_net(weights, bias)
    images = torch.rand(200, 1, 5, 4, generator=numbers)
    labels = network(images).argmax(1)
    exact = exact_distances(weights, bias, images, labels, norm)
    eps = exact.median().item()
    rows = (exact > eps).nonzero().flatten()[:8]
    other = torch.stack([images[(labels != label).nonzero()[0, 0]] for label in labels[rows]])
    own = labels[rows]
    found = level_images(
        lambda points, some: exact_distances(weights, bias, points, own[some], norm), images[rows], other, eps
    )
    return Level(network, found, own, eps)


def broken(norm: str, member: str, *, share: float, classes: int = 5, **changed: Any) -> int:
    """How many of eight images a member breaks at a share of their exact distance."""
    case = level(norm, classes)
    threat = Threat(norm, share * case.eps)
    result = autoattack(case.network, case.images, case.labels, threat, attacks=[member], **changed)
    assert result.flag_counts["unconfirmed successes"] == 0
    return int((~result.robust).sum())


def breaks_what_is_just_outside(member: str, norm: str) -> None:
    """All images when they lie within the radius by little, and none when it falls short of them by 1 %."""
    enough = 1.2 if (member, norm) == ("apgd-t", "l1") else 1.01
    assert broken(norm, member, share=enough) == 8
    assert broken(norm, member, share=0.99) == 0


def aims_at_every_class() -> None:
    """Aim at the next class where the likeliest other one can't be reached; and of two classes, at the one there is."""
    weights = torch.zeros(4, 20)
    weights[2] = 1.0
    network = linear_net(weights, torch.tensor([1.0, 0.9, -9.5, 0.0]))
    images, labels = torch.full((3, 1, 5, 4), 0.5), torch.zeros(3, dtype=torch.int64)
    threat = Threat("linf", 0.04)
    assert not autoattack(network, images, labels, threat, attacks=["apgd-t"]).robust.any()
    assert broken("linf", "apgd-t", share=1.01, classes=2) == 8


def ranks_all_others_by_their_logits() -> None:
    """Likeliest first, the label left out."""
    logits = torch.tensor([[1.0, 5.0, 3.0, 2.0], [9.0, 5.0, 3.0, 4.0]])
    assert runs.other_classes_by_logit(logits, torch.tensor([1, 2])).tolist() == [[2, 3, 0], [0, 1, 3]]


def stays_in_ball_and_range(norm: str) -> None:
    """Far points are moved to the radius, and not less; nothing leaves the pixel range."""
    images = torch.rand(6, 1, 5, 4, generator=generator(0)).mul(1.4).sub(0.2).clamp(0, 1)
    threat = Threat(norm, {"linf": 0.1, "l2": 0.3, "l1": 1.0}[norm])
    points = threat.project(images + 3 * torch.randn(images.shape, generator=generator(1)), images)
    assert ((points >= 0) & (points <= 1)).all()
    distance = threat.distance(points, images)
    assert (distance <= float(threat.eps) * (1 + 1e-6)).all() and (distance > 0.5 * float(threat.eps)).all()


def accepts_only_what_is_lower() -> None:
    """Square on a plateau stays where it began."""
    images, labels = torch.rand(2, 1, 4, 4, generator=generator(0)), torch.zeros(2, dtype=torch.int64)
    plateau = Recorder(lambda points: torch.tensor([1.0, 0.0]).repeat(len(points), 1))
    streams = ImageStreams.of(images, labels, seed=0)
    result = square.square(plateau, images, labels, Threat("linf", 0.1), streams, queries=30)
    assert torch.equal(result.adversarial, plateau.seen[0][:2]) and len(plateau.seen) > 10


def goes_beyond_the_plane_and_back() -> None:
    """FAB's first points on a linear model: a twentieth beyond the nearest one, then a tenth of the way back."""
    case = level("l2", 2)
    asked = Recorder(case.network, 8)
    fab.fab(asked, case.images, case.labels, Threat("l2", case.eps), targets=1 - case.labels, steps=1, within_eps=False)
    at, beyond, back = asked.seen[:3]
    away = Threat("l2", 1.0).distance(beyond, at)
    assert torch.equal(at, case.images) and (away - 1.05 * case.eps).abs().max() < 0.03 * case.eps
    assert (back - (at + 0.9 * (beyond - at))).abs().max() < 1e-6


def believes_the_decision() -> None:
    """Believe the decision: a view that is always wrong ends no run, and so hides nothing that the decision does."""
    case = level("linf", 2)
    threat = Threat("linf", 1.5 * case.eps)
    sides = torch.nn.functional.one_hot(case.labels, 2).float()
    swapped = lambda points: 9 * (1 - sides[: len(points)]) + case.network(points)  # noqa: E731
    target = AttackTarget(case.network, swapped)
    start = case.images.clone()
    run = apgd.apgd(target, case.images, case.labels, threat, start=start, loss=targeted_margin_of_two, steps=3)
    assert run.broken.all() and not torch.equal(run.adversarial, start)
    assert (case.network(run.adversarial).argmax(1) != case.labels).all()


def targeted_margin_of_two(logits: Tensor, labels: Tensor) -> Tensor:
    """Of two classes the target is the other one."""
    return targeted_margin(logits, labels, 1 - labels)


def calls_a_tie_broken() -> None:
    """Whatever argmax says."""
    images, labels = torch.rand(3, 1, 2, 2, generator=generator(0)), torch.zeros(3, dtype=torch.int64)
    tied = lambda points: torch.zeros(len(points), 3)  # noqa: E731
    assert not autoattack(tied, images, labels, Threat("linf", 0.1), attacks=["square"]).robust.any()


def believes_nothing_outside() -> None:
    """Whatever a member claims."""
    case = level("linf", 2)
    threat = Threat("linf", 0.5 * case.eps)
    course = EvaluationState(case.network, case.images, case.labels, threat, 8)
    course.clean_pass()
    flat = case.network[1].weight.detach()
    push = (flat[1 - case.labels] - flat[case.labels]).sign().view_as(case.images)
    course._confirm("a member", torch.arange(8), (case.images + 1.2 * case.eps * push).clamp(0, 1))
    assert course.robust.all()


CHECKS: dict[str, Callable[[], None]] = {
    "published steps": takes_the_published_steps,
    **{
        f"exact {member} {norm}": lambda own=(member, norm): breaks_what_is_just_outside(*own)
        for member, norm in [
            ("apgd-t", "linf"),
            ("apgd-t", "l2"),
            ("apgd-t", "l1"),
            ("fab-t", "linf"),
            ("fab-t", "l2"),
            ("fab-t", "l1"),
            ("odi-t", "linf"),
        ]
    },
    "every class": aims_at_every_class,
    "ranks": ranks_all_others_by_their_logits,
    **{f"ball {norm}": lambda own=norm: stays_in_ball_and_range(own) for norm in NORMS},
    "plateau": accepts_only_what_is_lower,
    "beyond and back": goes_beyond_the_plane_and_back,
    "decision": believes_the_decision,
    "ties": calls_a_tie_broken,
    "outside": believes_nothing_outside,
}
