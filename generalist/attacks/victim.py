"""Whom an attack asks: the deployed decision, and what stands in for it where that is faster or shows more slope."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from generalist.attacks.losses import Loss, Network, fooled, margin
from generalist.attacks.tiles import Slopes, logits_of, nearest_boundary, slopes_of
from generalist.tensors import Images, Labels, Logits, Mask, PerImage


@dataclass(frozen=True)
class Judged:
    """What was seen at some points.

    Attributes:
        slopes: through the view.
        broken: by the decision.
        forward: int64, passes that each point needed.
    """

    slopes: Slopes
    broken: Mask
    forward: Labels


@dataclass(frozen=True)
class Victim:
    """A decision, and a view of it that searches go through; nothing counts as broken by a view alone.

    Attributes:
        decision: the deployed function from images to logits, float32.
        view: the function to search in; by default the decision itself.
        slack: the decision is asked as well where the view's margin is at most this share of the spread of its
            logits; `inf` for views that follow a rule of their own, small for those that differ by rounding.
    """

    decision: Network
    view: Network | None = None
    slack: float = math.inf

    @classmethod
    def of(cls, network: "Victim | Network") -> "Victim":
        """Return a victim as it is, and a network as one that is its own view."""
        return network if isinstance(network, Victim) else cls(network)

    def slopes(self, points: Images, labels: Labels, loss: Loss, targets: Labels | None = None) -> Judged:
        """Return the losses with gradients by the view, and whether the points are broken."""
        return self._judged(slopes_of(self.view or self.decision, points, labels, loss, targets), points, labels)

    def nearest_boundary(
        self, points: Images, labels: Labels, length: Callable[[Images], Float64[Tensor, " batch"]]
    ) -> Judged:
        """Return the lead of the class whose boundary is nearest in the view; see `tiles.nearest_boundary`."""
        return self._judged(nearest_boundary(self.view or self.decision, points, labels, length), points, labels)

    def margins(self, points: Images, labels: Labels) -> tuple[PerImage, Labels]:
        """Return by how much labels win, by the view or, where asked, by the decision, and the passes needed."""
        logits = logits_of(self.view or self.decision, points)
        margins, passes = margin(logits, labels), torch.ones_like(labels)
        rows = self._close(logits, labels)
        if len(rows):
            margins[rows] = margin(logits_of(self.decision, points[rows]), labels[rows]).to(margins.dtype)
            passes[rows] += 1
        return margins, passes

    def broken(self, points: Images, labels: Labels) -> Mask:
        """Return which points are broken by the decision, in one pass."""
        return fooled(logits_of(self.decision, points), labels)

    def _judged(self, slopes: Slopes, points: Images, labels: Labels) -> Judged:
        broken, passes = fooled(slopes.logits, labels), torch.ones_like(labels)
        if self.view is not None:
            rows = self._close(slopes.logits, labels)
            broken = torch.zeros_like(broken)
            if len(rows):
                broken[rows] = self.broken(points[rows], labels[rows])
                passes[rows] += 1
        return Judged(slopes, broken, passes)

    def _close(self, logits: Logits, labels: Labels) -> Tensor:
        """Return where the decision must be asked."""
        if self.view is None:
            return labels[:0]
        if self.slack == math.inf:
            return torch.arange(len(labels), device=labels.device)
        spread = logits.amax(1) - logits.amin(1)
        return (~(margin(logits, labels) > self.slack * spread)).nonzero().squeeze(1)
