"""Auto-PGD (Croce and Hein, ICML 2020, algorithm 1; in L1: ICML 2021), as in the authors' published code.

Each run has its own step size, shortened at fixed check points where progress stalls; the search then goes
on from that run's best point.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from generalist.attacks.apgd_state import MOMENTUM, ApgdState, init_state
from generalist.attacks.attack_target import AttackTarget
from generalist.attacks.fixed_batches import detached
from generalist.attacks.losses import Loss, Network, cross_entropy
from generalist.errors import BadInput
from generalist.tensors import Images, Labels, Mask, PerImage
from generalist.threats import Threat

STEPS = 100
GIVE_UP_BELOW = ((0.22, -0.4), (0.41, -0.3), (0.57, -0.2))
"""For targeted DLR: from below these losses no run was seen to break its image (docs/decisions.md)."""
STAGES = ((3, 0.3), (2, 0.3), (1, 0.4))
"""The schedule of radii, in eps, with their shares of the steps (Croce and Hein, ICML 2021, section 4.3)."""


@dataclass(frozen=True)
class ApgdResult:
    """What the runs found, run by run.

    Attributes:
        broken: whether a point was misclassified.
        adversarial: that point: the first one, or the last one where the run did not stop at it; else the start.
        best: the point of the highest loss seen.
        best_loss: the loss there.
    """

    broken: Mask
    adversarial: Images
    best: Images
    best_loss: PerImage


@torch.inference_mode(mode=False)
def apgd(
    network: Network | AttackTarget,
    images: Images,
    labels: Labels,
    threat: Threat,
    *,
    start: Images,
    loss: Loss = cross_entropy,
    targets: Labels | None = None,
    steps: int = STEPS,
    stop_when_broken: bool = True,
    image_index: Labels | None = None,
    give_up: Sequence[tuple[float, float]] = (),
) -> ApgdResult:
    """Run once from each given start.

    Args:
        network: from images to logits, differentiable, in eval mode, or an `AttackTarget`; asked in fixed tiles.
        images: float32 or float64 [batch, channels, height, width] in [0, 1], one at least; this and the other
            tensors may need gradients, be views, or come from inference mode.
        labels: int64 [batch].
        threat: the ball to stay in.
        start: points to begin at, such as `threat.random_start`; projected.
        loss: what to raise, one number per image.
        targets: int64 [batch], the classes aimed at, for a loss that aims.
        steps: gradient steps.
        stop_when_broken: leave an image at its first misclassified point. Each image has its own
            trajectory, so this saves passes and changes no verdict.
        image_index: int64 [batch]; runs of the same number attack one image and end with the first that breaks it.
        give_up: shares of the steps after which a run whose highest loss is below a value ends.

    Raises:
        BadInput: no steps; a network that fails, or gives no logits.
    """
    if steps < 1:
        raise BadInput(f"APGD has {steps} steps; give it one at least")
    images, labels, targets = detached(images), detached(labels), None if targets is None else detached(targets)
    ball = threat.ball(images)
    points = ball.project_(start.detach().clone())
    image_index = torch.arange(len(images), device=images.device) if image_index is None else image_index
    target = AttackTarget.of(network)
    slopes = target.slopes(points, labels, loss, targets, image_index)
    runs = init_state(points, images, labels, targets, image_index, slopes, threat)
    best = ApgdResult(
        torch.zeros_like(labels, dtype=torch.bool), points.clone(), points.clone(), runs.best_loss.clone()
    )
    ended = torch.zeros(int(image_index.max()) + 1, dtype=torch.bool, device=images.device)
    leaving = _noted(best, ended, runs, target.judged(slopes, points, labels, image_index))
    windows, least = runs.windows(steps), {int(share * steps): value for share, value in give_up}
    for done in range(1, steps + 1):
        if stop_when_broken and leaving:
            runs = runs.select(~ended[runs.image_index])
            ball = threat.ball(runs.images)
        if not len(runs.rows):
            break
        runs.move(ball, momentum=1.0 if done == 1 else MOMENTUM)
        slopes = target.slopes(runs.points, runs.labels, loss, runs.targets, runs.image_index)
        runs.update_best(slopes)
        leaving = _noted(best, ended, runs, target.judged(slopes, runs.points, runs.labels, runs.image_index))
        if done in windows:
            runs.check(windows[done])
        if done in least:
            runs = runs.select(runs.best_loss >= least[done])
            ball = threat.ball(runs.images)
    return best


def _noted(result: ApgdResult, ended: Tensor, runs: ApgdState, broken: Mask) -> bool:
    """Take note of the runs' points, and of the images that they break; returns whether there are any."""
    result.best[runs.rows], result.best_loss[runs.rows] = runs.best, runs.best_loss
    if not bool(broken.any()):
        return False
    hit = runs.rows[broken]
    result.broken[hit], result.adversarial[hit] = True, runs.points[broken]
    ended[runs.image_index[broken]] = True
    return True


def apgd_from_outside(
    network: Network | AttackTarget,
    images: Images,
    labels: Labels,
    threat: Threat,
    *,
    start: Images,
    steps: int = STEPS,
    stop_when_broken: bool = True,
    **options: Any,
) -> ApgdResult:
    """Run at three times eps, then twice, then eps, each time from the best points of the run before.

    Only the last of them may break an image. The arguments are those of `apgd`.
    """
    for factor, share in STAGES:
        run = apgd(
            network,
            images,
            labels,
            threat.scaled(float(factor)),
            start=start,
            steps=max(int(share * steps), 1),
            stop_when_broken=stop_when_broken and factor == STAGES[-1][0],
            **options,
        )
        start = run.best
    return run
