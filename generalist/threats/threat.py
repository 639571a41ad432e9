"""A threat: a norm, or a space of changes, with a radius."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from jaxtyping import Float64
from pydantic import ValidationError
from torch import Tensor

from generalist.config import Quantity, ThreatOptions
from generalist.config.section import is_part, nearest, part, part_names
from generalist.errors import BadInput
from generalist.tensors import Images, PerImage
from generalist.threats.contract import Ball
from generalist.threats.spaces.contract import Space


@functools.cache
def ball_of(norm: str) -> type[Ball]:
    """Return the class in the file that a norm names."""
    return part("threats", norm, Ball)  # type: ignore[type-abstract]  # its subclass is not


@functools.cache
def space_of(name: str) -> type[Space]:
    """Return the options of a threat that is no ball, by its name."""
    return part("threats.spaces", name, Space)  # type: ignore[type-abstract]  # its subclass is not


def is_threat(name: str) -> bool:
    """Return whether there is a norm or a space of that name."""
    return is_part("threats", name) or is_part("threats.spaces", name)


def symbol_of(name: str) -> str:
    """Return what readers call a norm, or a space, by its name."""
    return space_of(name).symbol if is_part("threats.spaces", name) else ball_of(name).symbol


@dataclass(frozen=True)
class Threat:
    """The pixels of an image, all in [0, 1], may move within a ball around it, or as a space lets them.

    Attributes:
        norm: `linf`, `l2` or `l1`; or the name of a space.
        eps: radius in pixel units, or a space's own; a `Quantity` keeps its spelling, so that `str` gives "linf:8/255".
        space: options of a threat that is no ball around the image, such as ranges of attributes.

    Raises:
        BadInput: there is no such norm, or eps is negative or not finite.
    """

    norm: str
    eps: float
    space: Space | None = None

    measured: ClassVar[bool] = True
    """Whether it is known from which losses and margins on no run of an attack breaks its image."""

    def __post_init__(self) -> None:
        norm = str(self.norm)
        if self.space is None and not is_part("threats", norm):
            known = [*part_names("threats"), *part_names("threats.spaces")]
            hint = "it has options: read it by `Threat.parse`" if norm in known else nearest(norm, known)
            raise BadInput(f"there is no threat of norm '{norm}'; {hint}")
        try:
            eps = Quantity(self.eps)
        except ValueError as error:
            raise BadInput(f"eps of the threat: {error}; give the radius in pixel units, such as 8/255") from None
        if eps < 0:
            raise BadInput(f"eps of the threat is {eps.written}; a radius can't be negative: give one such as 8/255")
        object.__setattr__(self, "eps", eps)

    @classmethod
    def parse(cls, written: str) -> "Threat":
        """Read `norm:eps`, such as "linf:8/255", "l2:0.5" or "l1:12"; of a space, "attributes:1 rotation 30".

        Raises:
            BadInput: it is not of that form.
        """
        norm, colon, rest = written.partition(":")
        if not colon:
            raise BadInput(f"threat '{written}' is not of the form norm:eps, such as linf:8/255 or l2:0.5")
        if is_part("threats.spaces", norm):
            return threat_from(_read(norm, written, rest.split()))
        try:
            radius = Quantity(rest)
        except ValueError as error:
            raise BadInput(f"threat '{written}': {error}; write it as linf:8/255 or l2:0.5") from None
        return cls(norm, radius)

    def check_fits(self, shape: Sequence[int]) -> None:
        """Refuse a threat that is none for images of this shape (channels, height, width).

        Raises:
            BadInput: it allows every image, or its space says why.
        """
        if self.space is None:
            self.check_plausible(math.prod(shape))
        else:
            self.space.check_shape(shape)

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
        told = "" if self.space is None else f" {self.space.told()}"
        return f"{self.norm}:{self.eps.written if isinstance(self.eps, Quantity) else self.eps}{told}"

    @property
    def identity(self) -> str:
        """What tells it from every other threat, however its radius is written."""
        return f"{self.norm} {float(self.eps)!r}{'' if self.space is None else f' {self.space.told()}'}"

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules of its geometry."""
        return (f"generalist.threats.{self.norm}",) if self.space is None else self.space.modules

    @property
    def geometry(self) -> type[Ball]:
        """All that attacks need to know of the norm in which an image, or a point of the space, moves."""
        return ball_of(self.norm if self.space is None else self.space.norm_of_points)

    @property
    def of_points(self) -> "PointThreat":
        """The threat to the points of its space."""
        assert self.space is not None  # asked only where there is one
        return PointThreat(self.space.norm_of_points, float(self.eps) * self.space.unit, moved=self.space)

    def scaled(self, factor: float) -> Self:
        """Return the same threat with another radius."""
        return dataclasses.replace(self, eps=factor * float(self.eps))

    def everything(self, pixels: int) -> "Threat | None":
        """Return the threat that allows every image of so many numbers; None where no radius does."""
        return Threat(self.norm, self.geometry.whole_range(float(pixels)))

    def ball(self, images: Images, scale: PerImage | None = None) -> Ball:
        """Return the points allowed around these images; made once, it projects faster than `project`.

        Args:
            images: the centres.
            scale: factor on the radius of each image, 1 by default.

        Raises:
            TypeError: there is a space, whose points are no images.
        """
        if self.space is not None:
            if not self.space.moves_pixels:
                raise TypeError(f"{self} has no ball around images")
            return self.of_points.ball(images, scale)
        return self.geometry(images, self.eps if scale is None else scale.view(-1, 1, 1, 1) * float(self.eps))

    def project(self, points: Images, reference: Images) -> Images:
        """Return points moved into the ball around the reference, then into [0, 1]; not in place."""
        return self.ball(reference).project_(points.clone())

    def settled(self, points: Images, reference: Images) -> Images:
        """Return points that an attack claims, as they count: balls keep inside by themselves."""
        del reference
        return points

    def random_start(self, images: Images, generator: torch.Generator) -> Images:
        """Return a point drawn uniformly from the ball around each image, clipped to [0, 1]."""
        ball = self.ball(images)
        return ball.project_(ball.random_offset(generator).add_(images))

    def distance(self, points: Images, reference: Images) -> Float64[Tensor, " batch"]:
        """How far each point is from its reference, in float64."""
        return self.geometry.norm(points.double() - reference.double())


@dataclass(frozen=True)
class PointThreat(Threat):
    """The points of a space, as attacks move them: each number by up to eps where it is free, within [0, 1]."""

    moved: Space | None = None

    measured: ClassVar[bool] = False

    @property
    def identity(self) -> str:
        return f"{super().identity} of {'' if self.moved is None else self.moved.told()}"

    @property
    def modules(self) -> tuple[str, ...]:
        return super().modules if self.moved is None else self.moved.modules

    def check_fits(self, shape: Sequence[int]) -> None:
        """Leave it to the space, which knows the images."""

    def everything(self, pixels: int) -> None:
        return None

    def ball(self, images: Images, scale: PerImage | None = None) -> Ball:
        assert self.moved is not None  # see `Threat.of_points`
        eps = self.moved.free(images) * float(self.eps)
        return self.geometry(images, (eps if scale is None else eps * scale.view(-1, 1, 1, 1)).expand_as(images))

    def settled(self, points: Images, reference: Images) -> Images:
        """Return points with all numbers that are not free as they were, whatever rounding made of them."""
        return self.project(points, reference)


def threat_from(options: ThreatOptions) -> Threat:
    """Return the threat that the configuration names."""
    return Threat(options.norm, options.eps, options if isinstance(options, Space) else None)


def _read(norm: str, written: str, words: list[str]) -> Space:
    """Return a space by words: eps, then each key with its value.

    Raises:
        BadInput: they are no such options.
    """
    options = {"norm": norm, "eps": words[0] if words else ""}
    options |= dict(zip(words[1::2], words[2::2], strict=False))
    try:
        return space_of(norm).model_validate(options)
    except ValidationError as error:
        reason = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise BadInput(f"threat '{written}': {reason}; write it as {norm}:EPS KEY VALUE …") from None
