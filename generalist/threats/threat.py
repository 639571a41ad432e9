"""A norm and a radius."""

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from generalist.config import Quantity, ThreatOptions
from generalist.config.section import nearest
from generalist.errors import BadInput
from generalist.randomness import ImageStreams
from generalist.tensors import Images
from generalist.threats.ball import Ball
from generalist.threats.l1 import L1Ball
from generalist.threats.l2 import L2Ball
from generalist.threats.linf import LinfBall

_BALLS: dict[str, type[Ball]] = {"linf": LinfBall, "l2": L2Ball, "l1": L1Ball}
_DUAL = {"linf": "l1", "l2": "l2", "l1": "linf"}


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

    def dual_length(self, gradient: Images) -> Float64[Tensor, " batch"]:
        """By how much the best step of length 1 raises a linear function of this gradient: the dual norm."""
        return _BALLS[_DUAL[self.norm]].length(gradient)


def threat_from(options: ThreatOptions) -> Threat:
    """The threat that the configuration names."""
    return Threat(options.norm, options.eps)
