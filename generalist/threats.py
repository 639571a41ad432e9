"""Threats: what an adversary may do to an image. Norms differ here and nowhere else."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from generalist.config import Quantity, ThreatOptions
from generalist.config.section import nearest
from generalist.errors import BadInput
from generalist.randomness import ImageStreams
from generalist.tensors import Images

Scale = Float[Tensor, "batch 1 1 1"]
"""One number per image, ready to multiply images with."""


class Ball(ABC):
    """All points that a threat allows: within eps of the images by one norm, and in the pixel range [0, 1].

    Rounding never leads out of the ball: a radius is smaller than eps by what the last operations of
    `project_` may add (about 1e-7 in float32).
    """

    def __init__(self, images: Images, eps: float) -> None:
        self.images = images
        self.radius = max(self.rounded_in(float(eps), torch.finfo(images.dtype).eps), 0.0)

    @abstractmethod
    def rounded_in(self, eps: float, unit: float) -> float:
        """The radius whose rounded points lie within `eps`; `unit` is the gap between 1 and the next number."""

    @staticmethod
    @abstractmethod
    def length(offsets: Images) -> Float64[Tensor, " batch"]:
        """The norm of each offset, in float64."""

    @classmethod
    @abstractmethod
    def steepest_ascent(cls, gradient: Images) -> Images:
        """The step of length 1 that gains most by the gradient."""

    @abstractmethod
    def project_(self, points: Images) -> Images:
        """Move points into the ball and then into the pixel range, in place."""

    @abstractmethod
    def random_offset(self, generator: torch.Generator) -> Images:
        """An offset drawn uniformly from the ball, the pixel range left aside."""

    @abstractmethod
    def boundary_offset(self, streams: ImageStreams) -> Images:
        """A random offset of norm eps, as APGD starts from: not the uniform distribution, see the subclasses."""


class LinfBall(Ball):
    """Every pixel may change by up to eps."""

    def __init__(self, images: Images, eps: float) -> None:
        super().__init__(images, eps)
        self.low = (images - self.radius).clamp_(0, 1)
        self.high = (images + self.radius).clamp_(0, 1)

    def rounded_in(self, eps: float, unit: float) -> float:
        # A pixel below 1 is rounded by a quarter of `unit` at most, and so is a radius below 1.
        return eps - unit / 2

    @staticmethod
    def length(offsets: Images) -> Float64[Tensor, " batch"]:
        return offsets.double().abs().flatten(1).amax(1)

    @classmethod
    def steepest_ascent(cls, gradient: Images) -> Images:
        return gradient.sign()

    def project_(self, points: Images) -> Images:
        return torch.clamp(points, self.low, self.high, out=points)

    def random_offset(self, generator: torch.Generator) -> Images:
        return torch.empty_like(self.images).uniform_(-self.radius, self.radius, generator=generator)

    def boundary_offset(self, streams: ImageStreams) -> Images:
        """Uniform in the cube, stretched until one pixel touches its face (Croce and Hein's published code)."""
        offsets = streams.uniform(0, *self.images.shape[1:]).to(self.images.dtype).mul_(2).sub_(1)
        largest = offsets.abs().amax(dim=(1, 2, 3), keepdim=True)
        return offsets.div_(largest.clamp_min_(_TINY)).mul_(self.radius)


class L2Ball(Ball):
    """The Euclidean distance may grow up to eps; the ball is projected on first, then the pixel range.

    That is not the nearest point of their intersection, but in it: clipping brings a pixel nearer to its image's.
    """

    def rounded_in(self, eps: float, unit: float) -> float:
        # The scaling errs by some units relative to eps, each of the pixels by a quarter of one at most.
        return eps * (1 - 4 * unit) - math.sqrt(math.prod(self.images.shape[1:])) * unit / 4

    @staticmethod
    def length(offsets: Images) -> Float64[Tensor, " batch"]:
        # Float64 also keeps the float32 bits of a single row, whose sum torch may split over threads.
        lengths: Tensor = torch.linalg.vector_norm(offsets.flatten(1), dim=1, dtype=torch.float64)
        return lengths

    @classmethod
    def _length(cls, offsets: Images) -> Scale:
        return cls.length(offsets).to(offsets.dtype).view(-1, 1, 1, 1)

    @classmethod
    def steepest_ascent(cls, gradient: Images) -> Images:
        return gradient / cls._length(gradient).add_(1e-12)

    def project_(self, points: Images) -> Images:
        offsets = points.sub_(self.images)
        shrink = (self.radius / self._length(offsets).clamp_min_(_TINY)).clamp_max_(1)
        return offsets.mul_(shrink).add_(self.images).clamp_(0, 1)

    def random_offset(self, generator: torch.Generator) -> Images:
        """A normal direction, and a radius whose power of the dimension is uniform."""
        offsets = torch.empty_like(self.images).normal_(generator=generator)
        share = torch.empty_like(offsets[:, :1, :1, :1]).uniform_(generator=generator)
        share.pow_(1 / math.prod(offsets.shape[1:]))
        return offsets.mul_(share.mul_(self.radius).div_(self._length(offsets).clamp_min_(_TINY)))

    def boundary_offset(self, streams: ImageStreams) -> Images:
        """Uniform on the sphere."""
        offsets = streams.normal(0, *self.images.shape[1:]).to(self.images.dtype)
        return offsets.div_(self._length(offsets).clamp_min_(_TINY)).mul_(self.radius)


_TINY = 1e-30  # keeps 0 / 0 at 0; far below any length that float32 pixels give
_BALLS: dict[str, type[Ball]] = {"linf": LinfBall, "l2": L2Ball}


@dataclass(frozen=True)
class Threat:
    """The pixels of an image, all in [0, 1], may move within a ball around it.

    Attributes:
        norm: `linf` or `l2`.
        eps: radius in pixel units; a `Quantity` keeps its spelling, so that `str` gives "linf:8/255".

    Raises:
        BadInput: there is no such norm, or eps is negative or not finite.
    """

    norm: str
    eps: float

    def __post_init__(self) -> None:
        if self.norm not in _BALLS:
            raise BadInput(f"there is no threat of norm '{self.norm}'; {nearest(self.norm, list(_BALLS))}")
        try:
            eps = Quantity(self.eps)
        except ValueError as error:
            raise BadInput(f"eps of the threat: {error}; give the radius in pixel units, such as 8/255") from None
        if eps < 0:
            raise BadInput(f"eps of the threat is {eps.written}; a radius can't be negative: give one such as 8/255")
        object.__setattr__(self, "eps", eps)

    @classmethod
    def parse(cls, written: str) -> "Threat":
        """Read `norm:eps`, such as "linf:8/255" or "l2:0.5".

        Raises:
            BadInput: it is not of that form.
        """
        norm, colon, eps = written.partition(":")
        if not colon:
            raise BadInput(f"threat '{written}' is not of the form norm:eps, such as linf:8/255 or l2:0.5")
        try:
            radius = Quantity(eps)
        except ValueError as error:
            raise BadInput(f"threat '{written}': {error}; write it as linf:8/255 or l2:0.5") from None
        return cls(norm, radius)

    def __str__(self) -> str:
        return f"{self.norm}:{self.eps.written if isinstance(self.eps, Quantity) else self.eps}"

    def ball(self, images: Images) -> Ball:
        """The points allowed around these images; made once, it projects faster than `project`."""
        return _BALLS[self.norm](images, self.eps)

    def project(self, points: Images, reference: Images) -> Images:
        """Points moved into the ball around the reference, then into [0, 1]; not in place."""
        return self.ball(reference).project_(points.clone())

    def random_start(self, images: Images, generator: torch.Generator) -> Images:
        """A point drawn uniformly from the ball around each image, clipped to [0, 1]."""
        ball = self.ball(images)
        return ball.project_(ball.random_offset(generator).add_(images))

    def boundary_start(self, images: Images, streams: ImageStreams) -> Images:
        """A point at distance eps of each image, as APGD starts from, clipped to [0, 1]; drawn per image."""
        ball = self.ball(images)
        return ball.project_(ball.boundary_offset(streams).add_(images))

    def steepest_ascent(self, gradient: Images) -> Images:
        """The step of length 1 in this norm that gains most by the gradient (its sign; itself over its length)."""
        return _BALLS[self.norm].steepest_ascent(gradient)

    def distance(self, points: Images, reference: Images) -> Float64[Tensor, " batch"]:
        """How far each point is from its reference, in float64."""
        return _BALLS[self.norm].length(points.double() - reference.double())


def threat_from(options: ThreatOptions) -> Threat:
    """The threat that the configuration names."""
    return Threat(options.norm, options.eps)
