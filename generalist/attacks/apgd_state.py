"""Where the runs of APGD are, and how they move: step sizes by progress (Linf, L2) or by sparsity (L1)."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from generalist.attacks.fixed_batches import LossGradients
from generalist.tensors import Images, Labels, Mask, PerImage
from generalist.threats import Ball, Threat, sparse_ascent

MOMENTUM = 0.75  # share of the new direction; equation 2 of Croce and Hein, ICML 2020
PROGRESS = 0.75  # rho: share of steps that must raise the loss between two check points; section 3 there
# Check points, as shares of all steps: the first window, by how much each is shorter, the shortest; section 3 there.
FIRST_WINDOW, WINDOW_DECREASE, LAST_WINDOW = 0.22, 0.03, 0.06
# L1: share of steps between two check points, then as Croce and Hein, ICML 2021, section 4.2.
SPARSE_WINDOW, SPARSER, SHARE_OF_CHANGED, SLOWER, SLOWEST = 0.04, 0.95, 1.5, 1.5, 10
CHANGED = 1e-7  # a pixel that moved less is unchanged: rounding would decide otherwise


@dataclass
class ApgdState:
    """The runs still going on; every tensor has one row for each.

    Attributes:
        rows: their places among the runs that were begun.
        image_index: runs of one image share its number, and end together.
        points, previous: where each is and was a step before.
        gradients: the slope that the next step follows.
        best, best_gradients, best_loss: the point of the highest loss so far.
        loss: at the last step.
        rises: steps since the last check point that raised the loss.
        checked_loss: `best_loss` at the last check point.
        halved: whether the step size was halved there.
        step_size: pixel units.
        targets: the class aimed at, where the loss aims at one.
    """

    rows: Labels
    image_index: Labels
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
    targets: Labels | None

    def select(self, mask: Mask) -> "ApgdState":
        """Return the runs of a mask."""
        kept: dict[str, Any] = {name: None if value is None else value[mask] for name, value in vars(self).items()}
        return type(self)(**kept)

    @staticmethod
    def windows(steps: int) -> dict[int, int]:
        """Return the check points: after how many steps, and how many of them lie since the one before."""
        window, windows, done = max(int(FIRST_WINDOW * steps), 1), {}, 0
        while done + window <= steps:
            done += window
            windows[done] = window
            window = max(window - max(int(WINDOW_DECREASE * steps), 1), int(LAST_WINDOW * steps), 1)
        return windows

    def move(self, ball: Ball, *, momentum: float) -> None:
        """Take a step along the gradient, blended with the last movement, inside the ball."""
        # Products and sums stay apart: fused, they round differently by the place in memory.
        ahead = ball.project_(self.points + self.step_size * ball.steepest_ascent(self.gradients))
        step = (ahead - self.points).mul_(momentum) + (self.points - self.previous).mul_(1 - momentum)
        self.previous, self.points = self.points, ball.project_(step.add_(self.points))

    def update_best(self, slopes: LossGradients) -> None:
        """Update the best points by the loss at the new ones."""
        self.rises = self.rises + (slopes.losses > self.loss)
        self.loss, self.gradients = slopes.losses, slopes.gradients
        higher = slopes.losses > self.best_loss
        self.best_loss = torch.where(higher, slopes.losses, self.best_loss)
        self.best = torch.where(wide(higher), self.points, self.best)
        self.best_gradients = torch.where(wide(higher), slopes.gradients, self.best_gradients)

    def check(self, window: int) -> None:
        """Halve the step where too few rose, or the last window gained nothing, and go on from the best point."""
        stalled = ~self.halved & (self.checked_loss >= self.best_loss)
        halve = (self.rises <= PROGRESS * window) | stalled
        self.step_size = torch.where(wide(halve), self.step_size / 2, self.step_size)
        self.go_back(halve)
        self.halved, self.checked_loss = halve, self.best_loss
        self.rises = torch.zeros_like(self.rises)

    def go_back(self, runs: Mask) -> None:
        """Let some runs go on from their best point."""
        self.points = torch.where(wide(runs), self.best, self.points)
        self.gradients = torch.where(wide(runs), self.best_gradients, self.gradients)


@dataclass
class SparseApgdState(ApgdState):
    """Runs in L1: steps along a share of the pixels, without momentum (Croce and Hein, ICML 2021, section 4).

    Attributes:
        shares: of the pixels that the next step moves.
        changed: pixels that differ from the image at the last check point's best.
        longest: the largest step size, eps.
    """

    shares: PerImage
    changed: Labels
    longest: PerImage

    @staticmethod
    def windows(steps: int) -> dict[int, int]:
        """Return a check point every 4 % of the steps."""
        window = max(int(SPARSE_WINDOW * steps), 1)
        return dict.fromkeys(range(window, steps + 1, window), window)

    def move(self, ball: Ball, *, momentum: float) -> None:
        """Take a step along the steepest pixels, inside the ball."""
        step = self.step_size * sparse_ascent(self.gradients, self.shares)
        self.previous, self.points = self.points, ball.project_(step.add_(self.points))

    def check(self, window: int) -> None:
        """Go on from the best point in long steps where it became sparser; elsewhere in shorter ones."""
        changed = _changed(self.best, self.images)
        sparser = changed < SPARSER * self.changed
        self.shares = _shares(changed, self.images)
        longest = self.longest.view(-1, 1, 1, 1)
        shorter = torch.maximum(self.step_size / SLOWER, longest / SLOWEST)
        self.step_size = torch.where(wide(sparser), longest, shorter)
        self.changed = changed
        self.go_back(sparser)


def init_state(
    points: Images,
    images: Images,
    labels: Labels,
    targets: Labels | None,
    image_index: Labels,
    slopes: LossGradients,
    threat: Threat,
) -> ApgdState:
    """Begin one run from each point."""
    rows = torch.arange(len(points), device=points.device)
    eps = float(threat.eps)
    common: dict[str, Any] = {
        "rows": rows,
        "image_index": image_index,
        "images": images,
        "labels": labels,
        "targets": targets,
        "points": points,
        "previous": points,
        "gradients": slopes.gradients,
        "best": points,
        "best_gradients": slopes.gradients,
        "best_loss": slopes.losses,
        # The published code compares the first step's loss with 0 instead of the start's.
        "loss": torch.zeros_like(slopes.losses),
        "rises": torch.zeros_like(rows),
        "checked_loss": slopes.losses,
        "halved": torch.ones_like(rows, dtype=torch.bool),
    }
    if not threat.geometry.sparse:
        return ApgdState(**common, step_size=torch.full_like(points[:, :1, :1, :1], 2 * eps))
    changed = _changed(points, images)
    return SparseApgdState(
        **common,
        step_size=torch.full_like(points[:, :1, :1, :1], eps),
        shares=_shares(changed, images),
        changed=changed,
        longest=torch.full_like(slopes.losses, eps),
    )


def wide(mask: Mask) -> Tensor:
    """Return a mask ready to choose among images."""
    return mask.view(-1, 1, 1, 1)


def _changed(points: Images, images: Images) -> Labels:
    return ((points - images).abs() > CHANGED).flatten(1).sum(1)


def _shares(changed: Labels, images: Images) -> PerImage:
    return changed.to(images.dtype) / images[0].numel() / SHARE_OF_CHANGED
