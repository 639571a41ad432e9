"""FGSM and PGD: one loop of projected gradient ascent, the inner loop of adversarial training."""

from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from generalist.attacks.losses import Loss, Network, Reference, cross_entropy, of_logits
from generalist.config import AttackOptions
from generalist.engine import Program
from generalist.errors import BadInput
from generalist.tensors import Images
from generalist.threats import Ball, Threat


def slope(network: Network, images: Images, labels: Reference, loss: Loss) -> Images:
    """The gradient of each image's loss with respect to that image.

    Args:
        network: from images to logits; a program gives gradients in a way of its own.
        images: float [batch, channels, height, width].
        labels: int64 [batch], or what else the loss compares logits with.
        loss: one number per image.
    """
    if isinstance(network, Program):
        return network.slope(images, lambda logits: of_logits(loss, logits, labels))
    leaf = images.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(loss(network(leaf), labels).sum(), leaf)
    return gradient


class Attack(Protocol):
    """What `attack_from` gives."""

    def __call__(
        self,
        network: Network,
        images: Images,
        labels: Reference,
        threat: Threat,
        *,
        loss: Loss = cross_entropy,
        generator: torch.Generator | None = None,
        start: Images | None = None,
    ) -> Images:
        """Adversarial images, as `pgd` makes them."""


def pgd(
    network: Network,
    images: Images,
    labels: Reference,
    threat: Threat,
    *,
    steps: int,
    step_size: float | None = None,
    random_start: bool = True,
    loss: Loss = cross_entropy,
    generator: torch.Generator | None = None,
    start: Images | None = None,
) -> Images:
    """Projected gradient ascent (Madry et al., ICLR 2018): exactly `steps` gradients, the last point returned.

    Gradients are with respect to the images alone; the network's parameters, their `.grad` and torch's
    global generator stay as they are. Modes are the caller's: hand over a network in eval mode.

    Args:
        network: from images to logits, differentiable.
        images: float [batch, channels, height, width] in [0, 1].
        labels: int64 [batch], or what else the loss compares logits with.
        threat: the ball to stay in.
        steps: gradients to take.
        step_size: pixel units, by default 2.5 eps / steps.
        random_start: begin at a random point of the ball, drawn by `generator`; otherwise at the images.
        loss: what to raise, one number per image.
        generator: random numbers of the start, on the device of the images.
        start: begin at these points, projected, instead.

    Raises:
        BadInput: no steps, or a random start without a generator.
    """
    if steps < 1:
        raise BadInput(f"the attack has {steps} steps; give it one at least")
    if start is None and random_start and generator is None:
        raise BadInput("a random start needs a generator: pass generator=… or random_start=False")
    size = 2.5 * threat.eps / steps if step_size is None else float(step_size)
    ball = threat.ball(images)
    if start is not None:
        points = ball.project_(start.clone())
    elif random_start and generator is not None:
        points = ball.project_(ball.random_offset(generator).add_(images))
    else:
        points = images.clone()
    if isinstance(network, Program) and network.replays is not None:
        return _repeated(network, points, images, labels, threat, loss, steps, size)
    return _raised(network, points, ball, labels, loss, steps, size)


def _raised(
    network: Network, points: Images, ball: Ball, labels: Reference, loss: Loss, steps: int, size: float
) -> Images:
    """The points after so many steps of a size, moved in place."""
    with torch.no_grad():
        for _ in range(steps):
            gradient = slope(network, points, labels, loss)
            ball.project_(points.add_(ball.steepest_ascent(gradient), alpha=size))
    return points


def _repeated(
    network: Program,
    points: Images,
    images: Images,
    labels: Reference,
    threat: Threat,
    loss: Loss,
    steps: int,
    size: float,
) -> Images:
    """The same, all steps in one launch from the third time on, see `Replays`."""
    assert network.replays is not None

    def work(points: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        # Folding the weights belongs to what is repeated: optimizers and hand-backs write them in place.
        network.refresh()
        return _raised(network, points, threat.ball(images), labels, loss, steps, size)

    def agrees(found: Tensor, expected: Tensor) -> bool:
        inside = (threat.distance(found, images) <= float(threat.eps) + _APART).all()
        equal = (found - expected).abs() <= _APART
        return bool(inside & (found.amin() >= 0) & (found.amax() <= 1) & (equal.float().mean() >= _EQUAL))

    try:
        return network.replays(("pgd", loss, threat, steps, size), work, (points, images, labels), agrees)
    finally:
        network.expire()  # folded weights may lie in the graph's memory now, which the next replay writes


_APART, _EQUAL = 1e-4, 0.99
"""Where a sign hangs on the last bits of a gradient, a repeated attack may go another way; this share must not."""


def fgsm(
    network: Network,
    images: Images,
    labels: Reference,
    threat: Threat,
    *,
    step_size: float | None = None,
    loss: Loss = cross_entropy,
    generator: torch.Generator | None = None,
    start: Images | None = None,
) -> Images:
    """The fast gradient sign method (Goodfellow et al., ICLR 2015): one step of size eps from the images.

    The arguments are those of `pgd`; nothing is drawn from the generator.
    """
    del generator  # for the sake of callers that take either attack
    size = float(threat.eps if step_size is None else step_size)
    return pgd(network, images, labels, threat, steps=1, step_size=size, random_start=False, loss=loss, start=start)


def attack_from(options: AttackOptions) -> Attack:
    """The attack that the configuration names."""
    return _ATTACKS[options.name](options)


def _pgd_from(options: AttackOptions) -> Attack:
    return partial(pgd, steps=options.steps, step_size=options.step_size, random_start=options.random_start)


def _fgsm_from(options: AttackOptions) -> Attack:
    return partial(fgsm, step_size=options.step_size)


_ATTACKS = {"pgd": _pgd_from, "fgsm": _fgsm_from}
