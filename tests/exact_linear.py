"""Exact adversarial distances to linear models in the pixel range, and images that all have the same one; float64."""

from collections.abc import Callable

import torch
from torch import Tensor

NORMS = ["linf", "l2", "l1"]


def exact_distances(weights: Tensor, bias: Tensor, points: Tensor, labels: Tensor, norm: str) -> Tensor:
    """Return each image's smallest adversarial distance to logits W x + b: [batch], 0 if wrong, inf if out of reach.

    Args:
        weights: [classes, pixels].
        bias: [classes].
        points: images [batch, ...] of as many pixels.
        labels: [batch].
        norm: "linf", "l2" or "l1".
    """
    flat, weights, bias = points.double().flatten(1), weights.double(), bias.double()
    distances = halfspace_distances(flat, weights - weights[labels][:, None], bias - bias[labels][:, None], norm)
    return distances.scatter(1, labels[:, None], torch.inf).amin(1)


def halfspace_distances(points: Tensor, slopes: Tensor, offsets: Tensor, norm: str) -> Tensor:
    """How far each point [batch, pixels] must move, within [0, 1], until slope · point + offset >= 0: [batch, spaces].

    A step gains most per price where |slope| is large, up to the room that a pixel has. So pixel i moves by
    min(e, room_i) in Linf, by min(λ |w_i|, room_i) in L2, and in L1 the steepest pixels move first, as far as they can.

    Args:
        points: [batch, pixels] in [0, 1].
        slopes: [batch, spaces, pixels].
        offsets: [batch, spaces].
        norm: "linf", "l2" or "l1".
    """
    need = -((slopes * points[:, None]).sum(2) + offsets)
    steep, room = slopes.abs(), torch.where(slopes > 0, 1 - points[:, None], points[:, None])
    room = torch.where(steep > 0, room, 0)
    if norm == "linf":
        distances = _level(steep, room, need)
    elif norm == "l2":
        levels = _level(steep.square(), torch.where(steep > 0, room / steep, 0), need)
        distances = torch.minimum(levels[..., None] * steep, room).square().sum(2).sqrt()
    else:
        distances = _spent(steep, room, need)
    reachable = (steep * room).sum(2) >= need
    return torch.where(need <= 0, 0, torch.where(reachable, distances, torch.inf))


def _level(shares: Tensor, limits: Tensor, need: Tensor) -> Tensor:
    """Return the least λ with Σ shares · min(λ, limits) = need, the largest limit if there is none."""
    limits, order = limits.sort(dim=-1)
    shares = shares.gather(-1, order)
    growing = shares.flip(-1).cumsum(-1).flip(-1)  # what still grows with λ just below each limit
    full = (shares * limits).cumsum(-1) - shares * limits
    reached = full + growing * limits >= need[..., None]
    first = torch.where(reached.any(-1), reached.int().argmax(-1), limits.shape[-1] - 1)[..., None]
    level = (need[..., None] - full.gather(-1, first)) / growing.gather(-1, first).clamp_min(1e-300)
    return torch.minimum(level, limits.gather(-1, first)).squeeze(-1)


def _spent(steep: Tensor, room: Tensor, need: Tensor) -> Tensor:
    """Return the least sum of movements that gains `need`: knapsack with divisible goods, best price first."""
    steep, order = steep.sort(dim=-1, descending=True)
    room = room.gather(-1, order)
    gained = (steep * room).cumsum(-1)
    before = torch.cat([torch.zeros_like(gained[..., :1]), gained[..., :-1]], dim=-1)
    moves = ((need[..., None] - before).clamp_min(0) / steep.clamp_min(1e-300)).minimum(room)
    return torch.where(need[..., None] > before, moves, 0).sum(-1)


def level_images(
    distances: Callable[[Tensor, Tensor], Tensor], inside: Tensor, outside: Tensor, eps: float, *, by: float = 1e-7
) -> Tensor:
    """Images of distance eps, to `by` of it: each between one of `inside`, which is farther, and one of `outside`.

    Then one radius is just above or just below the distances of all of them. By the method of false position, with
    the Illinois rule: an end that stays counts half.

    Args:
        distances: of some images, given with their rows in the batch; continuous.
        inside: images of a finite distance above eps.
        outside: as many of a distance below eps.
        eps: the distance to have.
        by: relative tolerance.
    """
    rows = torch.arange(len(inside))
    ends = torch.stack([torch.zeros(len(inside)), torch.ones(len(inside))]).double()
    heights = torch.stack([distances(images, rows) - eps for images in (inside, outside)])
    kept = torch.full_like(rows, -1)
    found = inside.double().clone()
    for _ in range(100):
        (low, high), (above, below) = ends[:, rows], heights[:, rows]
        share = (low * below - high * above) / (below - above)
        wide = share.view(-1, *[1] * (inside.ndim - 1))
        found[rows] = inside[rows].double() * (1 - wide) + outside[rows].double() * wide
        height = distances(found[rows], rows) - eps
        side = (height <= 0).long()  # the end that moves
        heights[1 - side, rows] *= torch.where(kept[rows] == 1 - side, 0.5, 1.0)
        ends[side, rows], heights[side, rows], kept[rows] = share, height, 1 - side
        rows = rows[height.abs() > by * eps]
        if not len(rows):
            return found.float()
    raise AssertionError("no image of that distance was found")
