"""What an attack queries: the deployed decision, and what stands in for it where that is faster or shows more slope."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float64
from torch import Tensor

from generalist.attacks.fixed_batches import LossGradients, logits_of, loss_gradients_of, nearest_boundary
from generalist.attacks.losses import Loss, Network, margin, misclassified
from generalist.tensors import Images, Labels, Logits, Mask, PerImage


@dataclass(frozen=True)
class Cost:
    """What each image needed so far: passes, int64, and whether a gradient was exactly zero at any point."""

    forward: Labels
    backward: Labels
    zero_gradient: Mask


@dataclass(frozen=True)
class AttackTarget:
    """A decision, and a view of it that searches go through; nothing counts as broken by a view alone.

    Attributes:
        decision: the deployed function from images to logits, float32.
        view: the function to search in; by default the decision itself.
        slack: the decision is asked as well where the view's margin is at most this share of the spread of its
            logits; `inf` for views that follow a rule of their own, small for those that differ by rounding.
        cost: counts the passes of each image, by `owners`, the numbers of the points' images; None counts nothing.
    """

    decision: Network
    view: Network | None = None
    slack: float = math.inf
    cost: Cost | None = None

    @classmethod
    def of(cls, network: "AttackTarget | Network") -> "AttackTarget":
        """Return a target as it is, and a network as one that is its own view."""
        return network if isinstance(network, AttackTarget) else cls(network)

    def counted(self, images: Images) -> tuple["AttackTarget", Cost]:
        """Return the same with a count of its own, and that count, from 0 for each of these images."""
        zeros = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        cost = Cost(zeros, zeros.clone(), zeros > 0)
        return replace(self, cost=cost), cost

    def slopes(
        self, points: Images, labels: Labels, loss: Loss, targets: Labels | Logits | None, owners: Labels
    ) -> LossGradients:
        """Return the losses with gradients by the view."""
        slopes = loss_gradients_of(self.view or self.decision, points, labels, loss, targets)
        self._count(owners, slopes, backward=1)
        return slopes

    def nearest_boundary(
        self, points: Images, labels: Labels, length: Callable[[Images], Float64[Tensor, " batch"]], owners: Labels
    ) -> LossGradients:
        """Return the lead of the class whose boundary is nearest in the view; see `fixed_batches.nearest_boundary`."""
        slopes = nearest_boundary(self.view or self.decision, points, labels, length)
        self._count(owners, slopes, backward=slopes.logits.shape[1])
        return slopes

    def judged(self, slopes: LossGradients, points: Images, labels: Labels, owners: Labels) -> Mask:
        """Return which points are broken, by the slopes there and, where that is asked, by the decision."""
        if self.view is None:
            return misclassified(slopes.logits, labels)
        broken, rows = torch.zeros_like(labels, dtype=torch.bool), self._close(slopes.logits, labels)
        if len(rows):
            broken[rows] = self.broken(points[rows], labels[rows], owners[rows])
        return broken

    def margins(self, points: Images, labels: Labels, owners: Labels) -> PerImage:
        """Return by how much labels win, by the view or, where asked, by the decision."""
        logits = logits_of(self.view or self.decision, points)
        self._count(owners)
        margins, rows = margin(logits, labels), self._close(logits, labels)
        if len(rows):
            margins[rows] = margin(self.logits(points[rows], owners[rows]), labels[rows]).to(margins.dtype)
        return margins

    def broken(self, points: Images, labels: Labels, owners: Labels) -> Mask:
        """Return which points are broken by the decision, in one pass."""
        return misclassified(self.logits(points, owners), labels)

    def logits(self, points: Images, owners: Labels) -> Logits:
        """Return what the decision says, in one pass."""
        self._count(owners)
        return logits_of(self.decision, points)

    def _count(self, owners: Labels, slopes: LossGradients | None = None, *, backward: int = 0) -> None:
        if self.cost is None:
            return
        ones = torch.ones_like(owners)
        self.cost.forward.index_add_(0, owners, ones)
        if slopes is not None:
            self.cost.backward.index_add_(0, owners, ones, alpha=backward)
            self.cost.zero_gradient[owners[slopes.gradients.flatten(1).count_nonzero(dim=1) == 0]] = True

    def _close(self, logits: Logits, labels: Labels) -> Tensor:
        """Return where the decision must be asked."""
        if self.view is None:
            return labels[:0]
        if self.slack == math.inf:
            return torch.arange(len(labels), device=labels.device)
        spread = logits.amax(1) - logits.amin(1)
        return (~(margin(logits, labels) > self.slack * spread)).nonzero().squeeze(1)
