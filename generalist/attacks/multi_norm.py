"""Attacks within the union of several threats: every image ends in one of its balls."""

from collections.abc import Sequence

import torch

from generalist.attacks.fixed_batches import detached
from generalist.attacks.gradient import ResolvedAttack, input_gradient
from generalist.attacks.losses import Loss, Network, cross_entropy
from generalist.tensors import Images, Labels, PerImage


def worst_of(
    network: Network, candidates: Sequence[Images], labels: Labels, loss: Loss = cross_entropy
) -> tuple[Images, PerImage]:
    """Return for each image the candidate of the largest loss, of equals the first, and that loss."""
    with torch.no_grad():
        losses = torch.stack([loss(network(points), labels) for points in candidates])
    largest, which = losses.max(dim=0)
    points = candidates[0]
    for index, others in enumerate(candidates[1:], start=1):
        points = torch.where((which == index).view(-1, 1, 1, 1), others, points)
    return points, largest


@torch.inference_mode(mode=False)
def multi_steepest_descent(
    network: Network, images: Images, labels: Labels, attacks: Sequence[ResolvedAttack], loss: Loss = cross_entropy
) -> Images:
    """Attack by one ascent whose every step is that norm's which raises an image's loss most (MSD).

    From the images themselves; after each step an image lies in the ball of the norm whose step it took. What is
    returned is the best point of all steps (Maini, Wong and Kolter, ICML 2020, algorithm 2, and their code).

    Args:
        network: from images to logits, differentiable, in eval mode.
        images: float [batch, channels, height, width] in [0, 1].
        labels: int64 [batch].
        attacks: threat and step size of each norm; all have the same number of steps, and no random start.
        loss: what to raise, one number per image.
    """
    images, labels = detached(images), detached(labels)
    balls = [attack.threat.ball(images) for attack in attacks]
    points, best = images, images
    highest = torch.full_like(images[:, 0, 0, 0], -torch.inf)
    for _ in range(attacks[0].steps):
        gradient = input_gradient(network, points, labels, loss)
        candidates = [
            ball.project_(points.add(ball.steepest_ascent(gradient), alpha=attack.step_size))
            for ball, attack in zip(balls, attacks, strict=True)
        ]
        points, reached = worst_of(network, candidates, labels, loss)
        better = reached > highest
        best = torch.where(better.view(-1, 1, 1, 1), points, best)
        highest = torch.where(better, reached, highest)
    return best
