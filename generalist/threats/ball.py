"""What every norm is to the rest of the library."""

import copy
from abc import ABC, abstractmethod
from typing import Self

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from generalist.randomness import ImageStreams
from generalist.tensors import Images

TINY = 1e-30
"""Keeps 0 / 0 at 0; far below any length that float32 pixels give."""
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

    def of(self, rows: Tensor) -> Self:
        """The balls around some of the images, by indices."""
        part = copy.copy(self)
        vars(part).update({name: own[rows] for name, own in vars(self).items() if isinstance(own, Tensor)})
        return part

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
