"""Square Attack (Andriushchenko et al., ECCV 2020): random search by squares, from logits alone.

As in AutoAttack: margin loss, no restarts. Different from the published code: each image has windows
and signs of its own, every place of a window can be drawn, and any height and width will do.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from generalist.attacks.losses import Network, margin
from generalist.attacks.tiles import logits_of
from generalist.errors import BadInput
from generalist.randomness import ImageStreams
from generalist.tensors import Images, Labels, Mask, PerImage
from generalist.threats import Threat

FIRST_SHARE = 0.8  # share of the image's area that the first squares cover; AutoAttack's p_init
HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries after which that share is halved
_BLOCK, _BLOCK_NUMBERS = 64, 2**20  # queries planned at a time, and at most so many numbers for them

Candidates = Callable[[int, Images], Images]
"""The points of the i-th planned query, made from the best points so far."""


@dataclass(frozen=True)
class Search:
    """What the search found, image by image.

    Attributes:
        broken: whether a point was misclassified.
        adversarial: that point, or the point of the lowest margin.
        passes: int64, queries up to the verdict.
    """

    broken: Mask
    adversarial: Images
    passes: Labels


def square(
    network: Network, images: Images, labels: Labels, threat: Threat, streams: ImageStreams, *, queries: int = 5000
) -> Search:
    """Random search from given streams.

    Args:
        network: from images to logits; asked in fixed tiles, never differentiated.
        images: float32 [batch, channels, height, width] in [0, 1], one at least.
        labels: int64 [batch].
        threat: the ball to stay in.
        streams: random numbers of each image.
        queries: forward passes per image at most, the first one for the start.

    Raises:
        BadInput: no queries.
    """
    if queries < 1:
        raise BadInput(f"Square has {queries} queries; give it one at least")
    pattern = _PATTERNS[threat.norm](images, threat, streams)
    points = pattern.start()
    margins = margin(logits_of(network, points), labels)
    found, lowest, passes = points.clone(), margins.clone(), torch.ones_like(labels)
    rows = torch.arange(len(labels), device=labels.device)
    for block in _blocks(queries, images.numel()):
        active = margins > 0
        if not bool(active.all()):
            rows, points, labels, margins = rows[active], points[active], labels[active], margins[active]
            pattern = _PATTERNS[threat.norm](images[rows], threat, streams[rows])
        if not len(rows):
            break
        passes[rows] += _search_(network, pattern.plan(block), len(block), points, labels, margins)
        found[rows], lowest[rows] = points, margins
    return Search(~(lowest > 0), found, passes)


def _search_(
    network: Network, plan: Candidates, queries: int, points: Images, labels: Labels, margins: PerImage
) -> Labels:
    """Try the planned queries in turn, in place; returns how many each image needed."""
    needed = torch.zeros_like(labels)
    for index in range(queries):
        active = margins > 0
        if not bool(active.any()):
            break
        candidates = plan(index, points)
        lower = margin(logits_of(network, candidates), labels)
        # A broken image rests; what is not a number counts as broken and is judged by whoever confirms it.
        accepted = (active & ~(lower >= margins)).nonzero().squeeze(1)
        points.index_copy_(0, accepted, candidates.index_select(0, accepted))
        margins.index_copy_(0, accepted, lower.index_select(0, accepted))
        needed += active
    return needed


def _blocks(queries: int, numbers: int) -> Iterator[range]:
    """Queries 1, 2, … after the start, cut where the size of the squares changes."""
    longest = max(1, min(_BLOCK, _BLOCK_NUMBERS // max(numbers, 1)))
    edges = [1, *(edge + 1 for edge in HALVED_AFTER if edge + 1 < queries), queries]
    for first, end in pairwise(edges):
        for start in range(first, end, longest):
            yield range(start, min(start + longest, end))


def side(query: int, height: int, width: int) -> int:
    """The side of the square at a query, in pixels: at least 1, at most what fits."""
    share = FIRST_SHARE / 2 ** sum(query > edge for edge in HALVED_AFTER)
    return min(max(round(math.sqrt(share * height * width)), 1), height, width)


class _Pattern(ABC):
    """How one norm fills the ball with squares."""

    def __init__(self, images: Images, threat: Threat, streams: ImageStreams) -> None:
        self.images, self.threat, self.ball, self.streams = images, threat, threat.ball(images), streams

    @abstractmethod
    def start(self) -> Images:
        """The points of the first query."""

    @abstractmethod
    def plan(self, queries: range) -> Candidates:
        """Draw some queries for which `side` is the same."""

    def window(self, name: str, queries: range, size: int) -> tuple[Tensor, Tensor]:
        """Top row and left column of a window per query and image: int64 [queries, batch]."""
        height, width = self.images.shape[2:]
        tops = self.streams.child(name, "top").integers(queries, below=height - size + 1)
        lefts = self.streams.child(name, "left").integers(queries, below=width - size + 1)
        return tops.t(), lefts.t()

    def within(self, edges: Tensor, size: int, length: int) -> Tensor:
        """1 where a row (or column) lies in a window and 0 elsewhere: [queries, batch, length]."""
        offsets = torch.arange(length, device=edges.device) - edges[..., None]
        return ((offsets >= 0) & (offsets < size)).to(self.images.dtype)


class _Corners(_Pattern):
    """Linf (algorithm 2 there): every pixel at a face of the ball, squares set to one sign per channel."""

    def start(self) -> Images:
        """Vertical stripes of random sign."""
        channels, _, width = self.images.shape[1:]
        return self.ball.project_(self.images + 2 * self.streams.child("stripes").signs(0, channels, 1, width))

    def plan(self, queries: range) -> Candidates:
        channels, height, width = self.images.shape[1:]
        size = side(queries.start, height, width)
        tops, lefts = self.window("window", queries, size)
        signs = self.streams.child("sign").signs(queries, channels).transpose(0, 1)
        bars = (2 * signs[..., None] * self.within(tops, size, height)[:, :, None])[..., None]
        columns = self.within(lefts, size, width)[:, :, None, None]

        def candidates(index: int, points: Images) -> Images:
            # A push of 2 leads beyond the ball from anywhere, so projection leaves the face of its sign.
            return self.ball.project_((bars[index] * columns[index]).add_(points))

        return candidates


class _Bumps(_Pattern):
    """L2 (algorithm 3 there): a square takes the budget of another one and what is left unused."""

    def start(self) -> Images:
        """Tiles of a fifth of the image's shorter side, each a bump of random sign."""
        channels, height, width = self.images.shape[1:]
        size = max(min(height, width) // 5, 1)
        rows, inside_rows, row_tiles = _tiled(height, size, self.images.device)
        columns, inside_columns, column_tiles = _tiled(width, size, self.images.device)
        bump = _bump(size).to(self.images)[rows % size][:, columns % size]
        bump = bump * inside_rows[:, None] * inside_columns
        signs = self.streams.child("tiles").signs(0, channels, row_tiles, column_tiles)
        offsets = bump * signs[:, :, rows // size][:, :, :, columns // size]
        # Longer than eps by far, so projection leaves exactly eps of it.
        return self.ball.project_(self.images + offsets / _norms(offsets, (1, 2, 3)) * (2 * self.threat.eps))

    def plan(self, queries: range) -> Candidates:
        channels, height, width = self.images.shape[1:]
        size = max(side(queries.start, height, width), 3)
        size = min(size + 1 - size % 2, height, width)  # odd, so that the bump has a middle, where it fits
        tops, lefts = self.window("gain", queries, size)
        turned = self.streams.child("turned").integers(queries, below=2).t()
        signs = self.streams.child("sign").signs(queries, channels).transpose(0, 1)
        gains = self.within(tops, size, height)[..., None] * self.within(lefts, size, width)[:, :, None]
        bumps = signs[..., None, None] * (self.bumps(tops, lefts, turned, size) * gains)[:, :, None]
        tops, lefts = self.window("loss", queries, size)
        losses = self.within(tops, size, height)[..., None] * self.within(lefts, size, width)[:, :, None]

        def candidates(index: int, points: Images) -> Images:
            return self.moved(points, bumps[index], gains[index][:, None], losses[index][:, None])

        return candidates

    def moved(self, points: Images, bump: Images, gain: Tensor, loss: Tensor) -> Images:
        """The points with a bump added in the window `gain`, paid for by `loss`; both 1 inside and 0 outside."""
        offsets = points - self.images
        there = offsets * gain
        fresh = bump + there / _norms(there, (2, 3))
        unused = (self.threat.eps**2 - _norms(offsets, (1, 2, 3)).square()).clamp_min_(0)
        both = torch.maximum(gain, loss)
        budget = (_norms(offsets * both, (2, 3)).square() + unused / offsets.shape[1]).sqrt()
        moved = offsets * (1 - both) + fresh * (budget / _norms(fresh, (2, 3)))
        return self.ball.project_(moved.add_(self.images))

    def bumps(self, tops: Tensor, lefts: Tensor, turned: Tensor, size: int) -> Tensor:
        """The bump, or its transpose, at each window; outside of it anything: [queries, batch, height, width]."""
        height, width = self.images.shape[2:]
        kernel = _bump(size).to(self.images)
        both = torch.stack([kernel, kernel.t()]).flatten()
        rows = (torch.arange(height, device=tops.device) - tops[..., None]).clamp_(0, size - 1)
        columns = (torch.arange(width, device=tops.device) - lefts[..., None]).clamp_(0, size - 1)
        return both[turned[..., None, None] * size**2 + rows[..., None] * size + columns[:, :, None]]


def _norms(offsets: Images, dims: tuple[int, ...]) -> Tensor:
    """Euclidean norms over some dimensions, kept; in float64 first, as sums of float32 depend on the batch."""
    return offsets.double().square_().sum(dim=dims, keepdim=True).sqrt_().clamp_min_(1e-30).to(offsets.dtype)


def _tiled(length: int, size: int, device: torch.device) -> tuple[Tensor, Tensor, int]:
    """Positions counted from the first of the centred tiles, clamped to them; 1 where a tile is; how many there are."""
    count = length // size
    positions = torch.arange(length, device=device) - (length - count * size) // 2
    inside = (positions >= 0) & (positions < count * size)
    return positions.clamp_(0, count * size - 1), inside.float(), count


def _bump(size: int) -> Tensor:
    """Two opposite halves of nested rectangles, of norm 1: float32 [size, size] (η in section 3.4 there)."""
    upper = size // 2
    bump = torch.cat([_pyramid(upper, size), -_pyramid(size - upper, size)])
    return (bump / bump.square().sum().sqrt()).float()


def _pyramid(height: int, width: int) -> Tensor:
    """Rectangles around the middle, the k-th one smallest counted from 1 adding 1 / k^2; norm 1, or empty."""
    pyramid = torch.zeros(height, width, dtype=torch.float64)
    for k in range(max(height, width) // 2 + 1):
        top, left = height // 2 - k, width // 2 - k
        bottom, right = top + 2 * k + 1, left + 2 * k + 1
        pyramid[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] += 1 / (k + 1) ** 2
    return pyramid / pyramid.square().sum().sqrt() if height else pyramid


_PATTERNS: dict[str, type[_Pattern]] = {"linf": _Corners, "l2": _Bumps}
