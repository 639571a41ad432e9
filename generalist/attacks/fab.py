"""FAB, the fast adaptive boundary attack (Croce and Hein, ICML 2020), as in the authors' published code.

Each step projects the point, and the image, on the linearised decision boundary, and goes a little beyond a
mixture of both; from where the label lost it goes back towards the image. It looks for the nearest adversarial
image; asked for one within eps, it ends there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from generalist.attacks.attack_target import AttackTarget
from generalist.attacks.fixed_batches import LossGradients, detached
from generalist.attacks.losses import Network, targeted_margin
from generalist.errors import BadInput
from generalist.tensors import Images, Labels, Mask
from generalist.threats import Threat
from generalist.threats.geometry.hyperplane_projection import project_onto_hyperplane

STEPS = 100
LARGEST_MIX = 0.1  # alpha_max: the largest weight of the image's own projection
BEYOND = 1.05  # eta: how far a step goes beyond the boundary
BACK = 0.9  # beta: what is left of the offset after a step back
# After which share of the steps a run goes on only within how many eps, and among how many runs of its image, the
# nearest; measured, with room for runs that change their course late (docs/decisions.md).
GiveUpSchedule = Sequence[tuple[float, float, int]]
GIVE_UP_BEYOND: GiveUpSchedule = (
    (0.1, 3.0, 5),
    (0.2, 1.7, 4),
    (0.3, 1.6, 3),
    (0.4, 1.5, 3),
    (0.6, 1.2, 2),
    (0.8, 1.1, 2),
)
NEAR = 1.1  # times eps: how far outside a success is worth a try to bring it in
MARGIN = 1e-4  # relative; beyond a boundary, so that rounding does not decide
HALVINGS = 12  # of the line between an image and the nearest success


@dataclass(frozen=True)
class FabResult:
    """What the runs found, run by run.

    Attributes:
        broken: whether a misclassified point was found (within eps).
        adversarial: the nearest misclassified point, also where it is beyond eps; else the image.
        distance: its norm, float64; inf where there is none.
    """

    broken: Mask
    adversarial: Images
    distance: Float64[Tensor, " batch"]


@torch.inference_mode(mode=False)
def fab(
    network: Network | AttackTarget,
    images: Images,
    labels: Labels,
    threat: Threat,
    *,
    targets: Labels | None = None,
    start: Images | None = None,
    steps: int = STEPS,
    within_eps: bool = True,
    image_index: Labels | None = None,
    give_up: GiveUpSchedule = GIVE_UP_BEYOND,
) -> FabResult:
    """Run once from each image.

    Args:
        network: from images to logits, differentiable, in eval mode, or an `AttackTarget`; asked in fixed tiles.
        images: float32 or float64 [batch, channels, height, width] in [0, 1], one at least.
        labels: int64 [batch].
        threat: its norm measures what is near; its eps ends a run, see `within_eps`.
        targets: int64 [batch], the class whose boundary each run goes to; without, the nearest boundary, for
            which every class needs a backward pass in every step.
        start: points to begin at; by default the images.
        steps: gradient steps.
        within_eps: end a run at its first success within eps, or once it is too far to come there, and call
            nothing else broken; otherwise look for the nearest success whatever its distance.
        image_index: int64 [batch]; runs of the same number attack one image and end with the first that breaks it.
        give_up: with `within_eps`, shares of the steps after which only runs within so many eps, and so many
            runs of one image, the nearest, go on.

    Raises:
        BadInput: no steps; a network that fails, or gives no logits.
    """
    if steps < 1:
        raise BadInput(f"FAB has {steps} steps; give it one at least")
    images, labels, targets = detached(images), detached(labels), None if targets is None else detached(targets)
    search = _FabState(network, images, labels, threat, targets, within_eps=within_eps, image_index=image_index)
    search.begin(images.clone() if start is None else start.detach().clone())
    sieve = {int(share * steps): (factor, count) for share, factor, count in give_up}
    for done in range(1, steps + 1):
        if not len(search.rows):
            break
        search.step(sieve.get(done))
    search.polish()
    return search.nearest()


class _FabState:
    """The runs still going on, and what all of them found."""

    def __init__(
        self,
        network: Network | AttackTarget,
        images: Images,
        labels: Labels,
        threat: Threat,
        targets: Labels | None,
        *,
        within_eps: bool,
        image_index: Labels | None,
    ) -> None:
        self.attack_target, self.images, self.labels = AttackTarget.of(network), images, labels
        self.threat, self.targets = threat, targets
        self.limit = float(threat.eps) if within_eps else torch.inf
        self.within_eps = within_eps
        self.rows = torch.arange(len(images), device=images.device)
        self.image_index = self.rows if image_index is None else image_index
        self.adversarial = images.clone()
        self.distance = torch.full((len(images),), torch.inf, dtype=torch.float64, device=images.device)

    def begin(self, points: Images) -> None:
        """Take the slopes at the first points."""
        self.points = points
        self.slopes = self._slopes(self.rows, points)

    def step(self, sieve: tuple[float, int] | None) -> None:
        """Move every run; note successes, and go back from them; take the slopes that the next step needs.

        With a sieve (a factor and a count), runs whose success is farther than so many eps end, and those with so many
        nearer ones of their image.
        """
        points = self._moved()
        broken = self.attack_target.broken(points, self.labels[self.rows], self.image_index[self.rows])
        if bool(broken.any()):
            self._note(self.rows[broken], points[broken])
            images = self.images[self.rows]
            points = torch.where(broken.view(-1, 1, 1, 1), images + BACK * (points - images), points)
        self.points = points
        self._leave(sieve)
        if len(self.rows):
            self.slopes = self._slopes(self.rows, self.points)

    def polish(self) -> None:
        """Bring in what matters of the authors' overshoot, which leaves half a percent of distance."""
        reach = NEAR * self.limit
        rows = (self.distance.isfinite() & (self.distance > self.limit) & (self.distance <= reach)).nonzero().squeeze(1)
        if self.within_eps:
            rounds = 1
        else:
            rows, rounds = self.distance.isfinite().nonzero().squeeze(1), HALVINGS
        if not len(rows):
            return
        # The image's own projection on the boundary found: where the network is linear, the nearest point of all.
        images, slopes = self.images[rows], self._slopes(rows, self.adversarial[rows])
        offsets = self._to_boundary(self.adversarial[rows].flatten(1), slopes, images.flatten(1)).view_as(images)
        self._judge(rows, (images + (1 + MARGIN) * offsets).clamp_(0, 1))
        # Then the line to the image: at eps, or halved again and again.
        low, high = torch.zeros_like(self.distance[rows]), torch.ones_like(self.distance[rows])
        ends = self.adversarial[rows]
        for _ in range(rounds):
            share = self.limit * (1 - MARGIN) / self.distance[rows] if self.within_eps else (low + high) / 2
            broken = self._judge(rows, images + share.to(images.dtype).view(-1, 1, 1, 1) * (ends - images))
            low, high = torch.where(broken, low, share), torch.where(broken, share, high)

    def _judge(self, rows: Labels, points: Images) -> Mask:
        """Ask for the labels of some points, and note successes."""
        broken = self.attack_target.broken(points, self.labels[rows], self.image_index[rows])
        self._note(rows[broken], points[broken])
        return broken

    def nearest(self) -> FabResult:
        """Return what was found."""
        broken = self.distance.isfinite() & (self.distance <= self.limit)
        return FabResult(broken, self.adversarial, self.distance)

    def _moved(self) -> Images:
        """Return the next points: a mixture of both projections on the boundary, a little beyond it."""
        images, points = self.images[self.rows].flatten(1), self.points.flatten(1)
        both = self._to_boundary(points, self.slopes, torch.cat([points, images]))
        from_points, from_images = both.view(2, *points.shape)
        lengths = self._length(from_points).clamp_min(1e-8), self._length(from_images).clamp_min(1e-8)
        mix = (lengths[0] / (lengths[0] + lengths[1])).clamp_max(LARGEST_MIX)[:, None]
        moved: Images = (points + BEYOND * from_points) * (1 - mix) + (images + BEYOND * from_images) * mix
        return moved.clamp(0, 1).view_as(self.points)

    def _to_boundary(self, points: Tensor, slopes: LossGradients, origins: Tensor) -> Tensor:
        """Return the way from origins (one or several sets in turn) to the boundary as it looks from the points."""
        normals = slopes.gradients.flatten(1)
        # Float64 keeps the bits of a single row, whose sum torch may split over threads.
        level = (normals.double() * points.double()).sum(1).to(points.dtype) - slopes.losses
        sets = len(origins) // len(points)
        offsets: Tensor = project_onto_hyperplane(
            self.threat.geometry.fill, origins, normals.repeat(sets, 1), level.repeat(sets)
        )
        return offsets

    def _length(self, offsets: Tensor) -> Tensor:
        shaped = offsets.view(-1, *self.images.shape[1:])
        return self.threat.distance(shaped, torch.zeros_like(shaped)).to(offsets.dtype)

    def _note(self, rows: Labels, points: Images) -> None:
        """Take note of successes nearer than any before."""
        distance = self.threat.distance(points, self.images[rows])
        nearer = distance < self.distance[rows]
        self.distance[rows[nearer]] = distance[nearer]
        self.adversarial[rows[nearer]] = points[nearer]

    def _leave(self, sieve: tuple[float, int] | None) -> None:
        """Forget the runs of images that are broken, and those that are too far to break them."""
        if not self.within_eps:
            return
        ended = torch.zeros(int(self.image_index.max()) + 1, dtype=torch.bool, device=self.rows.device)
        ended[self.image_index[self.distance <= self.limit]] = True
        stay = ~ended[self.image_index[self.rows]]
        if sieve:
            factor, count = sieve
            distance = self.distance[self.rows]
            stay &= ((distance <= factor * self.limit) | distance.isinf()) & (self._places() < count)
        self.rows, self.points = self.rows[stay], self.points[stay]

    def _places(self) -> Labels:
        """Return how many runs of the same image found something nearer."""
        owners = self.image_index[self.rows]
        order = self.distance[self.rows].argsort(stable=True)
        order = order[owners[order].argsort(stable=True)]
        grouped = owners[order]
        first = torch.searchsorted(grouped, grouped)
        return torch.empty_like(order).index_copy_(0, order, torch.arange(len(order), device=order.device) - first)

    def _slopes(self, rows: Labels, points: Images) -> LossGradients:
        """Return the lead of the boundary's class with its gradient: the target's boundary, or the nearest one."""
        labels, owners = self.labels[rows], self.image_index[rows]
        if self.targets is None:
            return self.attack_target.nearest_boundary(points, labels, self.threat.geometry.dual_norm, owners)
        return self.attack_target.slopes(points, labels, targeted_margin, self.targets[rows], owners)
