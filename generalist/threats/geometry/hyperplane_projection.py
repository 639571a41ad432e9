"""The nearest point of a hyperplane inside the pixel range, in each norm (Croce and Hein, ICML 2020: FAB, section 2).

Pixel i can go `room_i` towards the plane before it meets the range. The least offset fills all rooms in step
(Linf), in proportion to the slopes (L2), or those of the largest slopes first (L1). In each case what is
gained is piecewise linear in one number, so sorting its corners gives that number exactly.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

_TINY = 1e-30
Rows = Float[Tensor, "rows pixels"]
Each = Float[Tensor, "rows 1"]
Fill = Callable[[Rows, Rows, Each], Rows]
"""By how much each pixel moves: from slopes, the room before the range ends, and what is to be gained."""


def project_onto_hyperplane(fill: Fill, points: Rows, normals: Rows, offsets: Float[Tensor, " rows"]) -> Rows:
    """Return the offset d of least norm with normals · (points + d) = offsets and points + d in [0, 1].

    Where the range does not reach the plane, d leads to the corner that comes nearest to it. Precision is that
    of the arguments; a row's result does not depend on the other rows.

    Args:
        fill: the norm's own, see `Ball.fill`.
        points: in the pixel range.
        normals: of the planes, one for each point.
        offsets: of the planes.
    """
    # Float64 keeps the bits of a single row, whose sum torch may split over threads.
    missing = (offsets.double() - (normals.double() * points.double()).sum(1)).to(points.dtype)[:, None]
    slopes = torch.where(missing < 0, -normals, normals)
    room = torch.where(slopes > 0, 1 - points, points) * (slopes != 0)
    return fill(slopes.abs(), room, missing.abs()) * slopes.sign()


def move_together(steepness: Rows, room: Rows, missing: Each, speeds: Rows) -> Rows:
    """Pixel i moves by min(λ speed_i, room_i), with the λ that gains what is missing."""
    full_at = torch.where(room > 0, room / speeds, 0)  # the λ at which a room is full
    full_at, order = full_at.sort(dim=1)
    filled = (steepness * room).gather(1, order).cumsum(1)
    rates = (steepness * speeds * (room > 0)).gather(1, order)
    open_rates = rates.flip(1).cumsum(1).flip(1)  # of this pixel and those that fill up later
    gained = filled + full_at * (open_rates - rates)
    full = (gained < missing).sum(1, keepdim=True)
    reachable = full < gained.shape[1]
    index = full.clamp_max(gained.shape[1] - 1)
    before = torch.where(full > 0, filled.gather(1, (full - 1).clamp_min(0)), 0)
    step = (missing - before) / open_rates.gather(1, index).clamp_min(_TINY)
    return torch.where(reachable, torch.minimum(step * speeds, room), room)


def steepest_first(steepness: Rows, room: Rows, missing: Each) -> Rows:
    """Rooms are filled in the order of their slopes, the last one in part."""
    ordered, order = steepness.sort(dim=1, descending=True, stable=True)
    rooms = room.gather(1, order)
    gains = ordered * rooms
    before = gains.cumsum(1) - gains
    moved = ((missing - before) / ordered.clamp_min(_TINY)).clamp_min(0).minimum(rooms)
    return torch.empty_like(moved).scatter_(1, order, moved)
