"""What every norm is to the rest of the library."""

import copy
from abc import ABC, abstractmethod
from typing import ClassVar, Self

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from generalist.randomness import ImageStreams
from generalist.tensors import Images
from generalist.threats.geometry.hyperplane_projection import Each, Rows
from generalist.threats.geometry.square_patterns import Pattern

TINY = 1e-30
"""Keeps 0 / 0 at 0; far below any length that float32 pixels give."""
Scale = Float[Tensor, "batch 1 1 1"]
"""One number per image, ready to multiply images with."""
Radius = float | Float[Tensor, "batch #channels #height #width"]


class Ball(ABC):
    """All points that a threat allows: within eps of the images by one norm, and in the pixel range [0, 1].

    Rounding never leads out of the ball: a radius is smaller than eps by what the last operations of
    `project_` may add (about 1e-7 in float32). Both are one number, or one per image; in L∞ also one per pixel.
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
