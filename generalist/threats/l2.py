"""L2: the Euclidean distance."""

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from generalist.randomness import ImageStreams, normal_like, uniform_like
from generalist.tensors import Images
from generalist.threats.contract import TINY, Ball, Radius, Scale
from generalist.threats.geometry.hyperplane_projection import Each, Rows, move_together
from generalist.threats.geometry.square_patterns import Bumps


class L2Ball(Ball):
    """The Euclidean distance may grow up to eps; the ball is projected on first, then the pixel range.

    That is not the nearest point of their intersection, but in it: clipping brings a pixel nearer to its image's.
    """

    symbol = "L2"
    squares = Bumps
    square_give_up_above = ((1000, 0.3), (2000, 0.12))

    @staticmethod
    def whole_range(pixels: float) -> float:
        return math.sqrt(pixels)

    def safe_radius(self, eps: Radius, unit: float) -> Radius:
        # The scaling errs by some units relative to eps, each of the pixels by a quarter of one at most.
        return eps * (1 - 4 * unit) - math.sqrt(math.prod(self.images.shape[1:])) * unit / 4

    @staticmethod
    def norm(offsets: Images) -> Float64[Tensor, " batch"]:
        # Float64 also keeps the float32 bits of a single row, whose sum torch may split over threads.
        lengths: Tensor = torch.linalg.vector_norm(offsets.flatten(1), dim=1, dtype=torch.float64)
        return lengths

    @classmethod
    def _length(cls, offsets: Images) -> Scale:
        return cls.norm(offsets).to(offsets.dtype).view(-1, 1, 1, 1)

    @classmethod
    def dual_norm(cls, gradient: Images) -> Float64[Tensor, " batch"]:
        return cls.norm(gradient)

    @staticmethod
    def fill(steepness: Rows, room: Rows, missing: Each) -> Rows:
        return move_together(steepness, room, missing, steepness)

    @classmethod
    def steepest_ascent(cls, gradient: Images) -> Images:
        return gradient / cls._length(gradient).add_(1e-12)

    def project_(self, points: Images) -> Images:
        offsets = points.sub_(self.images)
        shrink = (self.radius / self._length(offsets).clamp_min_(TINY)).clamp_max_(1)
        return offsets.mul_(shrink).add_(self.images).clamp_(0, 1)

    def random_offset(self, generator: torch.Generator) -> Images:
        """Return a normal direction, and a radius whose power of the dimension is uniform."""
        offsets = normal_like(self.images, generator=generator)
        share = uniform_like(offsets[:, :1, :1, :1], 0.0, 1.0, generator=generator)
        share.pow_(1 / math.prod(offsets.shape[1:]))
        return offsets.mul_(share.mul_(self.radius).div_(self._length(offsets).clamp_min_(TINY)))

    def boundary_offset(self, streams: ImageStreams) -> Images:
        """Draw uniformly on the sphere."""
        offsets = streams.normal(0, *self.images.shape[1:]).to(self.images.dtype)
        return offsets.div_(self._length(offsets).clamp_min_(TINY)).mul_(self.radius)
