"""Auto-PGD (Croce and Hein, ICML 2020, algorithm 1), as in the authors' published code, for one loss and start.

Each image has its own step size, halved at fixed check points where progress stalls; the search then goes
on from that image's best point.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from generalist.attacks.losses import Loss, Network, cross_entropy, fooled
from generalist.attacks.tiles import Slopes, slopes_of
from generalist.errors import BadInput
from generalist.tensors import Images, Labels, Mask, PerImage
from generalist.threats import Ball, Threat

STEPS = 100
MOMENTUM = 0.75  # share of the new direction; equation 2 there
PROGRESS = 0.75  # rho: share of steps that must raise the loss between two check points; section 3
# Check points, as shares of all steps: the first window, by how much each is shorter, the shortest; section 3.
FIRST_WINDOW, WINDOW_DECREASE, LAST_WINDOW = 0.22, 0.03, 0.06


@dataclass(frozen=True)
class Ascent:
    """What a run found, image by image.

    Attributes:
        broken: whether a point was misclassified.
        adversarial: that point: the first one, or the last one where the run did not stop at it; else the start.
        best: the point of the highest loss seen.
        best_loss: the loss there.
        passes: int64, forward passes, each with its backward pass.
        blind: whether the gradient at the start was exactly zero.
    """

    broken: Mask
    adversarial: Images
    best: Images
    best_loss: PerImage
    passes: Labels
    blind: Mask


def apgd(
    network: Network,
    images: Images,
    labels: Labels,
    threat: Threat,
    *,
    start: Images,
    loss: Loss = cross_entropy,
    steps: int = STEPS,
    stop_when_broken: bool = True,
) -> Ascent:
    """One run from the given start.

    Args:
        network: from images to logits, differentiable, in eval mode; asked in fixed tiles.
        images: float32 or float64 [batch, channels, height, width] in [0, 1], one at least.
        labels: int64 [batch].
        threat: the ball to stay in.
        start: points to begin at, such as `threat.boundary_start`; projected.
        loss: what to raise, one number per image.
        steps: gradient steps.
        stop_when_broken: leave an image at its first misclassified point. Each image has its own
            trajectory, so this saves passes and changes no verdict.

    Raises:
        BadInput: no steps.
    """
    if steps < 1:
        raise BadInput(f"APGD has {steps} steps; give it one at least")
    ball = threat.ball(images)
    points = ball.project_(start.clone())
    slopes = slopes_of(network, points, labels, loss)
    state = _State.at(points, images, labels, slopes, step_size=2 * threat.eps)
    found = _Record(points, slopes)
    found.note(state, slopes.logits)
    windows = _windows(steps)
    for done in range(1, steps + 1):
        going_on = ~found.broken[state.rows]
        if stop_when_broken and not bool(going_on.all()):
            state = state.kept(going_on)
            ball = threat.ball(state.images)
        if not len(state.rows):
            break
        state.move(ball, momentum=1.0 if done == 1 else MOMENTUM)
        slopes = slopes_of(network, state.points, state.labels, loss)
        state.observe(slopes)
        found.note(state, slopes.logits)
        if done in windows:
            state.check(windows[done])
    return found.ascent()


def _windows(steps: int) -> dict[int, int]:
    """The check points: after how many steps, and how many of them lie since the one before."""
    window, windows, done = max(int(FIRST_WINDOW * steps), 1), {}, 0
    while done + window <= steps:
        done += window
        windows[done] = window
        window = max(window - max(int(WINDOW_DECREASE * steps), 1), int(LAST_WINDOW * steps), 1)
    return windows


@dataclass
class _State:
    """The images still attacked; every tensor has one row for each.

    Attributes:
        rows: their places in the batch that the run began with.
        points, previous: where each is and was a step before.
        gradients: the slope that the next step follows.
        best, best_gradients, best_loss: the point of the highest loss so far.
        loss: at the last step.
        rises: steps since the last check point that raised the loss.
        checked_loss: `best_loss` at the last check point.
        halved: whether the step size was halved there.
        step_size: pixel units.
    """

    rows: Labels
    images: Images
    labels: Labels
    points: Images
    previous: Images
    gradients: Images
    best: Images
    best_gradients: Images
    best_loss: PerImage
    loss: PerImage
    rises: Labels
    checked_loss: PerImage
    halved: Mask
    step_size: Float[Tensor, "batch 1 1 1"]

    @classmethod
    def at(cls, points: Images, images: Images, labels: Labels, slopes: Slopes, *, step_size: float) -> "_State":
        rows = torch.arange(len(points), device=points.device)
        return cls(
            rows=rows,
            images=images,
            labels=labels,
            points=points,
            previous=points,
            gradients=slopes.gradients,
            best=points,
            best_gradients=slopes.gradients,
            best_loss=slopes.losses,
            # The published code compares the first step's loss with 0 instead of the start's.
            loss=torch.zeros_like(slopes.losses),
            rises=torch.zeros_like(rows),
            checked_loss=slopes.losses,
            halved=torch.ones_like(rows, dtype=torch.bool),
            step_size=torch.full_like(points[:, :1, :1, :1], step_size),
        )

    def kept(self, mask: Mask) -> "_State":
        """The images of a mask."""
        return _State(**{name: tensor[mask] for name, tensor in vars(self).items()})

    def move(self, ball: Ball, *, momentum: float) -> None:
        """A step along the gradient, blended with the last movement, inside the ball."""
        # Products and sums stay apart: fused, they round differently by the place in memory.
        ahead = ball.project_(self.points + self.step_size * ball.steepest_ascent(self.gradients))
        step = (ahead - self.points).mul_(momentum) + (self.points - self.previous).mul_(1 - momentum)
        self.previous, self.points = self.points, ball.project_(step.add_(self.points))

    def observe(self, slopes: Slopes) -> None:
        """Keep books on the loss at the new points."""
        self.rises = self.rises + (slopes.losses > self.loss)
        self.loss, self.gradients = slopes.losses, slopes.gradients
        higher = slopes.losses > self.best_loss
        self.best_loss = torch.where(higher, slopes.losses, self.best_loss)
        self.best = torch.where(_wide(higher), self.points, self.best)
        self.best_gradients = torch.where(_wide(higher), slopes.gradients, self.best_gradients)

    def check(self, window: int) -> None:
        """Where too few steps rose, or the last window gained nothing: halve the step, go on from the best point."""
        stalled = ~self.halved & (self.checked_loss >= self.best_loss)
        halve = (self.rises <= PROGRESS * window) | stalled
        self.step_size = torch.where(_wide(halve), self.step_size / 2, self.step_size)
        self.points = torch.where(_wide(halve), self.best, self.points)
        self.gradients = torch.where(_wide(halve), self.best_gradients, self.gradients)
        self.halved, self.checked_loss = halve, self.best_loss
        self.rises = torch.zeros_like(self.rises)


class _Record:
    """What was found so far, for the whole batch."""

    def __init__(self, start: Images, slopes: Slopes) -> None:
        self.adversarial = start.clone()
        self.best, self.best_loss = start.clone(), slopes.losses.clone()
        self.broken = torch.zeros(len(start), dtype=torch.bool, device=start.device)
        self.passes = torch.zeros(len(start), dtype=torch.int64, device=start.device)
        self.blind = slopes.gradients.flatten(1).count_nonzero(dim=1) == 0

    def note(self, state: _State, logits: Tensor) -> None:
        """After the passes at the state's points."""
        now = fooled(logits, state.labels)
        hit = state.rows[now]
        self.broken[hit] = True
        self.adversarial[hit] = state.points[now]
        self.passes[state.rows] += 1
        self.best[state.rows], self.best_loss[state.rows] = state.best, state.best_loss

    def ascent(self) -> Ascent:
        return Ascent(self.broken, self.adversarial, self.best, self.best_loss, self.passes, self.blind)


def _wide(mask: Mask) -> Tensor:
    return mask.view(-1, 1, 1, 1)
