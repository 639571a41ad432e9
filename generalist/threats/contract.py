"""What every norm is to the rest of the library, and a threat: a norm with a radius."""

import copy
import functools
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from generalist.config import Quantity, ThreatOptions
from generalist.config.section import is_part, nearest, part, part_names
from generalist.errors import BadInput
from generalist.randomness import ImageStreams
from generalist.tensors import Images, PerImage
from generalist.threats.geometry.hyperplane_projection import Each, Rows
from generalist.threats.geometry.square_patterns import Pattern

TINY = 1e-30
"""Keeps 0 / 0 at 0; far below any length that float32 pixels give."""
Scale = Float[Tensor, "batch 1 1 1"]
"""One number per image, ready to multiply images with."""
Radius = float | Scale


class Ball(ABC):
    """All points that a threat allows: within eps of the images by one norm, and in the pixel range [0, 1].

    Rounding never leads out of the ball: a radius is smaller than eps by what the last operations of
    `project_` may add (about 1e-7 in float32). Both are one number, or one per image.
    """

    symbol: ClassVar[str]
    """The norm for readers, such as L2."""
    squares: ClassVar[type[Pattern]]
    """What Square Attack tries in it."""
    square_give_up_above: ClassVar[tuple[tuple[int, float], ...]] = ()
    """After which query, and from which share of the margin at the start on, no run of Square was seen to break its
    image (docs/decisions.md)."""
    sparse: ClassVar[bool] = False
    """Whether points that fool change few pixels: APGD then comes from outside of the ball, from more starts."""

    def __init__(self, images: Images, eps: Radius) -> None:
        unit = torch.finfo(images.dtype).eps
        self.images, self.eps = images, eps if isinstance(eps, Tensor) else float(eps)
        rounded = self.safe_radius(self.eps, unit)
        self.radius = rounded.clamp_min(0) if isinstance(rounded, Tensor) else max(rounded, 0.0)

    def of(self, rows: Tensor) -> Self:
        """Return the balls around some of the images, by indices."""
        part = copy.copy(self)
        vars(part).update({name: tensor[rows] for name, tensor in vars(self).items() if isinstance(tensor, Tensor)})
        return part

    @staticmethod
    @abstractmethod
    def whole_range(pixels: float) -> float:
        """Return the radius from which every image of so many numbers in [0, 1] is allowed, whatever it is around."""

    @abstractmethod
    def safe_radius(self, eps: Radius, unit: float) -> Radius:
        """Return the radius whose rounded points lie within `eps`; `unit` is the gap between 1 and the next number."""

    @staticmethod
    @abstractmethod
    def norm(offsets: Images) -> Float64[Tensor, " batch"]:
        """Return the norm of each offset, in float64."""

    @classmethod
    @abstractmethod
    def dual_norm(cls, gradient: Images) -> Float64[Tensor, " batch"]:
        """By how much the best step of length 1 raises a linear function of this gradient: the dual norm."""

    @staticmethod
    @abstractmethod
    def fill(steepness: Rows, room: Rows, missing: Each) -> Rows:
        """Return the least offset along all slopes that gains what is missing, else all room; see `geometry.planes`."""

    @classmethod
    @abstractmethod
    def steepest_ascent(cls, gradient: Images) -> Images:
        """Return the step of length 1 that gains most by the gradient."""

    @abstractmethod
    def project_(self, points: Images) -> Images:
        """Move points into the ball and then into the pixel range, in place."""

    @abstractmethod
    def random_offset(self, generator: torch.Generator) -> Images:
        """Return an offset drawn uniformly from the ball, the pixel range left aside."""

    @abstractmethod
    def boundary_offset(self, streams: ImageStreams) -> Images:
        """Return a random offset of norm eps, as APGD starts from: not the uniform distribution, see the subclasses."""


@functools.cache
def ball_of(norm: str) -> type[Ball]:
    """Return the class in the file that a norm names."""
    return part("threats", norm, Ball)  # type: ignore[type-abstract]  # its subclass is not


@dataclass(frozen=True)
class Threat:
    """The pixels of an image, all in [0, 1], may move within a ball around it.

    Attributes:
        norm: `linf`, `l2` or `l1`.
        eps: radius in pixel units; a `Quantity` keeps its spelling, so that `str` gives "linf:8/255".

    Raises:
        BadInput: there is no such norm, or eps is negative or not finite.
    """

    norm: str
    eps: float

    def __post_init__(self) -> None:
        norm = str(self.norm)
        if not is_part("threats", norm):
            raise BadInput(f"there is no threat of norm '{norm}'; {nearest(norm, part_names('threats'))}")
        try:
            eps = Quantity(self.eps)
        except ValueError as error:
            raise BadInput(f"eps of the threat: {error}; give the radius in pixel units, such as 8/255") from None
        if eps < 0:
            raise BadInput(f"eps of the threat is {eps.written}; a radius can't be negative: give one such as 8/255")
        object.__setattr__(self, "eps", eps)

    @classmethod
    def parse(cls, written: str) -> "Threat":
        """Read `norm:eps`, such as "linf:8/255", "l2:0.5" or "l1:12".

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

    def check_plausible(self, pixels: int) -> None:
        """Refuse a radius within which every image lies: no classifier can be robust to that.

        Args:
            pixels: numbers of an image, channels included.

        Raises:
            BadInput: it is such a radius, as 8 in place of 8/255.
        """
        if self.eps < self.geometry.whole_range(float(pixels)):
            return
        written = str(self).partition(":")[2]
        hint = f"did you mean {self.norm}:{written}/255" if "/" not in written else "choose a smaller one"
        raise BadInput(f"the threat {self} allows every image, as its {pixels} numbers lie in [0, 1]: {hint}?")

    def __str__(self) -> str:
        return f"{self.norm}:{self.eps.written if isinstance(self.eps, Quantity) else self.eps}"

    @property
    def geometry(self) -> type[Ball]:
        """All that attacks need to know of the norm."""
        return ball_of(self.norm)

    def ball(self, images: Images, scale: PerImage | None = None) -> Ball:
        """Return the points allowed around these images; made once, it projects faster than `project`.

        Args:
            images: the centres.
            scale: factor on the radius of each image, 1 by default.
        """
        return self.geometry(images, self.eps if scale is None else scale.view(-1, 1, 1, 1) * float(self.eps))

    def project(self, points: Images, reference: Images) -> Images:
        """Return points moved into the ball around the reference, then into [0, 1]; not in place."""
        return self.ball(reference).project_(points.clone())

    def random_start(self, images: Images, generator: torch.Generator) -> Images:
        """Return a point drawn uniformly from the ball around each image, clipped to [0, 1]."""
        ball = self.ball(images)
        return ball.project_(ball.random_offset(generator).add_(images))

    def distance(self, points: Images, reference: Images) -> Float64[Tensor, " batch"]:
        """How far each point is from its reference, in float64."""
        return self.geometry.norm(points.double() - reference.double())


def threat_from(options: ThreatOptions) -> Threat:
    """Return the threat that the configuration names."""
    return Threat(options.norm, options.eps)
