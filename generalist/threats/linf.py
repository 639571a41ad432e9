"""Linf: every pixel by itself."""

import torch
from jaxtyping import Float64
from torch import Tensor

from generalist.randomness import ImageStreams, uniform_like
from generalist.tensors import Images
from generalist.threats.contract import TINY, Ball, Radius
from generalist.threats.geometry.hyperplane_projection import Each, Rows, move_together
from generalist.threats.geometry.square_patterns import Corners


class LinfBall(Ball):
    """Every pixel may change by up to eps."""

    symbol = "L∞"
    squares = Corners
    square_give_up_above = ((1000, 0.3), (2000, 0.12))

    def __init__(self, images: Images, eps: Radius) -> None:
        super().__init__(images, eps)
        self.low = (images - self.radius).clamp_(0, 1)
        self.high = (images + self.radius).clamp_(0, 1)

    @staticmethod
    def whole_range(pixels: float) -> float:
        del pixels  # each has the same range
        return 1.0

    def safe_radius(self, eps: Radius, unit: float) -> Radius:
        # A pixel below 1 is rounded by a quarter of `unit` at most, and so is a radius below 1.
        return eps - unit / 2

    @staticmethod
    def norm(offsets: Images) -> Float64[Tensor, " batch"]:
        return offsets.double().abs().flatten(1).amax(1)

    @classmethod
    def dual_norm(cls, gradient: Images) -> Float64[Tensor, " batch"]:
        return gradient.double().abs().flatten(1).sum(1)

    @staticmethod
    def fill(steepness: Rows, room: Rows, missing: Each) -> Rows:
        return move_together(steepness, room, missing, torch.ones_like(steepness))

    @classmethod
    def steepest_ascent(cls, gradient: Images) -> Images:
        return gradient.sign()

    def project_(self, points: Images) -> Images:
        return torch.clamp(points, self.low, self.high, out=points)

    def random_offset(self, generator: torch.Generator) -> Images:
        if isinstance(self.radius, Tensor):
            return uniform_like(self.images, -1.0, 1.0, generator=generator).mul_(self.radius)
        return uniform_like(self.images, -self.radius, self.radius, generator=generator)

    def boundary_offset(self, streams: ImageStreams) -> Images:
        """Draw uniformly in the cube, stretched until one pixel touches its face (Croce and Hein's published code)."""
        offsets = streams.uniform(0, *self.images.shape[1:]).to(self.images.dtype).mul_(2).sub_(1)
        largest = offsets.abs().amax(dim=(1, 2, 3), keepdim=True)
        return offsets.div_(largest.clamp_min_(TINY)).mul_(self.radius)
