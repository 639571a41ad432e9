"""Square Attack of the plain cascade: all images of a batch share their windows, as in the published code."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)

Draw = Callable[..., Tensor]


@torch.no_grad()
def search(
    network: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    norm: str,
    eps: float,
    generator: torch.Generator,
    queries: int,
) -> Tensor:
    """Return the points of the lowest margin after `queries` queries."""

    def signs(*shape: int) -> Tensor:
        return 2.0 * (torch.rand(shape, generator=generator, device=x.device) < 0.5) - 1

    def below(end: int) -> int:
        return int(torch.rand((), generator=generator, device=x.device) * end)

    first, propose = (stripes, squares) if norm == "linf" else (tiles, bumps)
    points = first(x, eps, signs)
    margins = margin(network(points), y)
    for query in range(1, queries):
        left = (margins > 0).nonzero().squeeze(1)
        if not len(left):
            break
        share = 0.8 / 2 ** sum(query > edge for edge in HALVED_AFTER)
        tried = propose(points[left], x[left], eps, share, signs, below)
        reached = margin(network(tried), y[left])
        better = (reached < margins[left]) | (reached <= 0)
        points[left[better]], margins[left[better]] = tried[better], reached[better]
    return points


def margin(z: Tensor, y: Tensor) -> Tensor:
    """Return z_y - max of the other z."""
    own = z.gather(1, y[:, None])
    return own.squeeze(1) - z.scatter(1, y[:, None], -math.inf).amax(1)


def stripes(x: Tensor, eps: float, signs: Draw) -> Tensor:
    """Return vertical stripes, for Linf."""
    return (x + eps * signs(*x.shape[:2], 1, x.shape[3])).clamp(0, 1)


def squares(points: Tensor, x: Tensor, eps: float, share: float, signs: Draw, below: Callable[[int], int]) -> Tensor:
    """Set one square to one sign per channel, both the same for all images, for Linf."""
    height, width = x.shape[2:]
    side = min(max(round(math.sqrt(share * height * width)), 1), height, width)
    top, left = below(height - side), below(width - side)
    tried = points.clone()
    tried[:, :, top : top + side, left : left + side] += 2 * eps * signs(x.shape[1], 1, 1)
    return torch.min(torch.max(tried, x - eps), x + eps).clamp(0, 1)


def tiles(x: Tensor, eps: float, signs: Draw) -> Tensor:
    """Return five by five bumps, for L2."""
    side = x.shape[2] // 5
    offsets = torch.zeros_like(x)
    edge = (x.shape[2] - 5 * side) // 2
    for top in range(edge, edge + side * (x.shape[2] // side), side):
        for left in range(edge, edge + side * (x.shape[3] // side), side):
            part = offsets[:, :, top : top + side, left : left + side]
            part += (bump(side).to(x) * signs(*x.shape[:2], 1, 1))[:, :, : part.shape[2], : part.shape[3]]
    return (x + offsets / whole_norm(offsets) * eps).clamp(0, 1)


def bumps(points: Tensor, x: Tensor, eps: float, share: float, signs: Draw, below: Callable[[int], int]) -> Tensor:
    """Put a bump in one window, paid for by that window, another one, and what is unused, for L2."""
    height, width = x.shape[2:]
    side = max(round(math.sqrt(share * height * width)), 3)
    side += 1 - side % 2
    gain, loss = torch.zeros_like(x), torch.zeros_like(x)
    top, left = below(height - side), below(width - side)
    window = (..., slice(top, top + side), slice(left, left + side))
    gain[window] = 1
    other_top, other_left = below(height - side), below(width - side)
    loss[..., other_top : other_top + side, other_left : other_left + side] = 1
    offsets = points - x
    unused = (eps**2 - whole_norm(offsets).square()).clamp_min(0) / x.shape[1]
    budget = (norms(offsets * torch.max(gain, loss)).square() + unused).sqrt()
    kernel = bump(side).to(x)
    kernel = kernel.t() if below(2) else kernel
    fresh = kernel * signs(*x.shape[:2], 1, 1) + offsets[window] / (norms(offsets * gain) + 1e-12)
    offsets = offsets * (1 - loss)
    offsets[window] = fresh / (norms(fresh) + 1e-12) * budget
    return (x + offsets / (whole_norm(offsets) + 1e-12) * eps).clamp(0, 1)


def norms(offsets: Tensor) -> Tensor:
    """Return the norms per image and channel."""
    return offsets.square().sum((2, 3), keepdim=True).sqrt()


def whole_norm(offsets: Tensor) -> Tensor:
    """Return the norms per image."""
    return offsets.square().sum((1, 2, 3), keepdim=True).sqrt()


def bump(side: int) -> Tensor:
    """Return two opposite halves of norm 1."""
    both = torch.cat([pyramid(side // 2, side), -pyramid(side - side // 2, side)])
    return both / both.square().sum().sqrt()


def pyramid(height: int, width: int) -> Tensor:
    """Return nested rectangles, the k-th smallest adding 1 / k^2."""
    total = torch.zeros(height, width)
    for k in range(max(height // 2, width // 2) + 1):
        rows = slice(max(height // 2 - k, 0), max(min(height // 2 + k + 1, height), 0))
        columns = slice(max(width // 2 - k, 0), min(width // 2 + k + 1, width))
        total[rows, columns] += 1 / (k + 1) ** 2
    return total / total.square().sum().sqrt() if height else total
