"""The squares that Square Attack tries (Andriushchenko et al., ECCV 2020, section 3), by patterns."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol, Self

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn import functional

from generalist.randomness import ImageStreams
from generalist.tensors import Images, Labels

FIRST_SHARE = 0.8  # share of the image's area that the first squares cover; AutoAttack's p_init
HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries after which that share is halved

Candidates = Callable[[Labels, Labels, Images], Images]
"""The points of some planned queries: which query, of which image, and that image's best point so far."""


def side(query: int, height: int, width: int) -> int:
    """Return the side of the square at a query, in pixels: at least 1, at most what fits."""
    share = FIRST_SHARE / 2 ** sum(query > edge for edge in HALVED_AFTER)
    return min(max(round(math.sqrt(share * height * width)), 1), height, width)


class Allowed(Protocol):
    """What squares need to know of a ball (`generalist.threats.Ball`)."""

    images: Images
    eps: float | Float[Tensor, "batch 1 1 1"]

    def of(self, rows: Tensor) -> Self: ...
    def project_(self, points: Images) -> Images: ...
    @staticmethod
    def norm(offsets: Images) -> Float64[Tensor, " batch"]: ...


class Pattern(ABC):
    """How one norm fills the ball around some images with squares, drawn from their streams."""

    def __init__(self, ball: Allowed, streams: ImageStreams) -> None:
        self.images, self.ball, self.streams = ball.images, ball, streams

    @abstractmethod
    def start(self) -> Images:
        """Return the points of the first query."""

    @abstractmethod
    def plan(self, queries: range) -> Candidates:
        """Draw some queries for which `side` is the same."""

    def window(self, name: str, queries: range, size: int) -> tuple[Tensor, Tensor]:
        """Return the top row and left column of a window per query and image: int64 [queries, batch]."""
        height, width = self.images.shape[2:]
        tops = self.streams.child(name, "top").integers(queries, below=height - size + 1)
        lefts = self.streams.child(name, "left").integers(queries, below=width - size + 1)
        return tops.t().contiguous(), lefts.t().contiguous()  # a query's numbers beside each other

    def within(self, edges: Tensor, size: int, length: int) -> Tensor:
        """Return 1 where a row (or column) lies in a window and 0 elsewhere: [queries, batch, length]."""
        offsets = torch.arange(length, device=edges.device) - edges[..., None]
        return ((offsets >= 0) & (offsets < size)).to(self.images.dtype)


class Corners(Pattern):
    """Linf (algorithm 2 there): every pixel at a face of the ball, squares set to one sign per channel."""

    def start(self) -> Images:
        """Return vertical stripes of random sign."""
        channels, _, width = self.images.shape[1:]
        return self.ball.project_(self.images + 2 * self.streams.child("stripes").signs(0, channels, 1, width))

    def plan(self, queries: range) -> Candidates:
        channels, height, width = self.images.shape[1:]
        size = side(queries.start, height, width)
        tops, lefts = self.window("window", queries, size)
        signs = self.streams.child("sign").signs(queries, channels).transpose(0, 1).contiguous()
        bars = (2 * signs[..., None] * self.within(tops, size, height)[:, :, None])[..., None]
        columns = self.within(lefts, size, width)[:, :, None, None]

        def candidates(index: Labels, rows: Labels, points: Images) -> Images:
            # A push of 2 leads beyond the ball from anywhere, so projection leaves the face of its sign.
            return self.ball.of(rows).project_((bars[index, rows] * columns[index, rows]).add_(points))

        return candidates


class Bumps(Pattern):
    """L2 (algorithm 3 there): a square takes the budget of another one and what is left unused."""

    order = 2  # of the norm
    fall = 2  # of the bumps: the k-th rectangle adds 1 / k^fall

    def start(self) -> Images:
        """Return tiles of a fifth of the image's shorter side, each a bump of random sign."""
        channels, height, width = self.images.shape[1:]
        size = max(min(height, width) // 5, 1)
        rows, inside_rows, row_tiles = _tiled(height, size, self.images.device)
        columns, inside_columns, column_tiles = _tiled(width, size, self.images.device)
        bump = self.bump(size)[rows % size][:, columns % size]
        bump = bump * inside_rows[:, None] * inside_columns
        signs = self.streams.child("tiles").signs(0, channels, row_tiles, column_tiles)
        offsets = bump * signs[:, :, rows // size][:, :, :, columns // size]
        length = self.ball.norm(offsets).to(offsets.dtype).view(-1, 1, 1, 1)
        return self.ball.project_(self.images + offsets / length * self.ball.eps)

    def plan(self, queries: range) -> Candidates:
        channels, height, width = self.images.shape[1:]
        size = max(side(queries.start, height, width), 3)
        size = min(size + 1 - size % 2, height, width)  # odd, so that the bump has a middle, where it fits
        tops, lefts = self.window("gain", queries, size)
        turned = self.streams.child("turned").integers(queries, below=2).t().contiguous()
        signs = self.streams.child("sign").signs(queries, channels).transpose(0, 1).contiguous()[..., None, None]
        tables, across, along = self.bumps(tops, lefts, turned, size)
        tops, lefts = self.window("loss", queries, size)
        loss_rows, loss_columns = self.within(tops, size, height), self.within(lefts, size, width)

        def candidates(index: Labels, rows: Labels, points: Images) -> Images:
            places = across[index, rows][:, None, :, None] + along[index, rows][:, None, None]
            bump, gain = tables.index_select(1, places.flatten()).view(2, *places.shape)
            loss = loss_rows[index, rows][:, None, :, None] * loss_columns[index, rows][:, None, None]
            return self.moved(rows, points, bump * signs[index, rows], gain, torch.maximum(gain, loss))

        return candidates

    def moved(self, rows: Labels, points: Images, bump: Images, gain: Tensor, touched: Tensor) -> Images:
        """Return some images' points with a bump in one window, paid by both windows' budgets and what no pixel uses.

        `gain` is 1 in the window of the bump and `touched` in either of them: [batch, 1, height, width].
        """
        ball = self.ball.of(rows)
        offsets = points - ball.images
        in_bump, in_both = offsets * gain, offsets * touched
        fresh = in_bump.div_(self.norms(in_bump)).add_(bump)
        eps, order = self.ball.eps, self.order
        unused = (eps**order - self.norms(offsets).pow(order).sum(dim=1, keepdim=True)).clamp_min_(0)
        budget = (self.norms(in_both).pow(order) + unused / offsets.shape[1]).pow(1 / order)
        fresh.mul_(budget / self.norms(fresh))
        return ball.project_((offsets - in_both).add_(fresh).add_(ball.images))

    def bumps(self, tops: Tensor, lefts: Tensor, turned: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return where each pixel finds its part of a bump, or of its transpose.

        Returns:
            Two tables [2, places]: the bump and its transpose one after the other, each framed by zeros; and 1 for
            what is not frame. Then the place of each pixel as a sum of two parts, int64 [queries, batch, height]
            and [queries, batch, width]; pixels outside of the window find the frame.
        """
        height, width = self.images.shape[2:]
        bump = self.bump(size)
        tables = torch.stack([bump, bump.t(), torch.ones_like(bump), torch.ones_like(bump)])
        rows = (torch.arange(1, height + 1, device=tops.device) - tops[..., None]).clamp_(0, size + 1)
        columns = (torch.arange(1, width + 1, device=tops.device) - lefts[..., None]).clamp_(0, size + 1)
        rows = (rows + turned[..., None] * (size + 2)) * (size + 2)
        return functional.pad(tables, (1, 1, 1, 1)).view(2, -1), rows, columns

    def norms(self, offsets: Images) -> Tensor:
        """Return the norms per channel, kept from 0 so that 0 / 0 becomes 0: [batch, channels, 1, 1].

        `vector_norm` computes each row by itself; a sum of squares may be split over threads where there is one row
        only.
        """
        norms: Tensor = torch.linalg.vector_norm(offsets.flatten(2), ord=self.order, dim=2)
        return norms.clamp_min_(1e-30)[..., None, None]

    def bump(self, size: int) -> Tensor:
        """Return two opposite halves of nested rectangles, of norm 1: [size, size] (η in section 3.4 there)."""
        upper = size // 2
        bump = torch.cat([_pyramid(upper, size, self.fall), -_pyramid(size - upper, size, self.fall)])
        return bump.div_(torch.linalg.vector_norm(bump, ord=self.order)).to(self.images)


class Peaks(Bumps):
    """L1 (Croce and Hein, ICML 2021, section 5): the same with steeper bumps, as L1 favours few pixels."""

    order = 1
    fall = 4


def _tiled(length: int, size: int, device: torch.device) -> tuple[Tensor, Tensor, int]:
    """Return positions from the first centred tile on, clamped to the tiles; 1 where a tile is; how many there are."""
    count = length // size
    positions = torch.arange(length, device=device) - (length - count * size) // 2
    inside = (positions >= 0) & (positions < count * size)
    return positions.clamp_(0, count * size - 1), inside.float(), count


def _pyramid(height: int, width: int, fall: int) -> Tensor:
    """Return rectangles around the middle, the k-th one smallest counted from 1 adding 1 / k^fall; norm 1, or empty."""
    pyramid = torch.zeros(height, width, dtype=torch.float64)
    for k in range(max(height, width) // 2 + 1):
        top, left = height // 2 - k, width // 2 - k
        bottom, right = top + 2 * k + 1, left + 2 * k + 1
        pyramid[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] += 1 / (k + 1) ** fall
    return pyramid / pyramid.square().sum().sqrt() if height else pyramid
