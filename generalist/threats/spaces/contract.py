"""What an adversary may move where it isn't each pixel within a ball: points, from which images are made.

A point is shaped like an image. Attacks go through `network(space.images(points))`, and move its numbers, all in
[0, 1], within a box: so PGD, APGD and the rest are the same as ever.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from generalist.config import ThreatOptions
from generalist.tensors import Images

Points = Float[Tensor, "batch channels rows columns"]
"""Shaped like images, and maybe of another size."""
Change = Callable[[Images], Images]
"""One choice of an adversary, the same for every image."""


class Space(ThreatOptions, ABC):
    """Options of a threat, and what they let an adversary do.

    Bounds of a point are `unit` times eps around the point of the image itself, where `free` says so.
    """

    symbol: ClassVar[str]
    """The threat for readers."""
    norm_of_points: ClassVar[str] = "linf"
    """The norm in which points move."""
    unit: ClassVar[float] = 1.0
    """What an eps, or a step, of 1 is in numbers of a point."""
    moves_pixels: ClassVar[bool] = False
    """Whether a point is an image, so that an attack may begin at one."""
    members: ClassVar[tuple[str, ...] | None] = None
    """The attacks of a cascade that mean something here; None for all."""

    def check_radius(self) -> None:
        """Leave it to the bounds of each space's own eps."""

    @property
    def modules(self) -> tuple[str, ...]:
        return (type(self).__module__, f"generalist.threats.{self.norm_of_points}")

    @abstractmethod
    def points(self, images: Images) -> Points:
        """Return the points that give the images themselves, to the bit."""

    @abstractmethod
    def images(self, points: Points) -> Images:
        """Return the images that points give, differentiable in what an adversary moves."""

    @abstractmethod
    def free(self, points: Points) -> Float[Tensor, "1 channels rows columns"]:
        """Return 1 where a number may move and 0 where not, shaped as one point."""

    def check_shape(self, shape: Sequence[int]) -> None:
        """Refuse images of this shape (channels, height, width) where the threat is none for them.

        Raises:
            BadInput: the sentence says why.
        """

    def changes(self) -> Sequence[Change]:
        """Return a grid of choices, of which the worst for each image is asked for; none by default."""
        return ()

    def grid_title(self) -> str:
        """Return what people call the grid, such as `grid 31x5x5`; without a comma or a slash."""
        return f"grid of {len(self.changes())}"

    def told(self) -> str:
        """Return its options in words that a record can have in a name: `rotation 30 translation 0.1`."""
        values = self.model_dump(mode="json", exclude={"norm", "eps"}, exclude_none=True)
        return " ".join(f"{key} {value}" for key, value in values.items() if not isinstance(value, dict))

    def through(self, network: Callable[..., Any]) -> Callable[..., Any]:
        """Return a network as a function of points."""

        def asked(points: Points) -> Any:
            return network(self.images(points))

        return asked


def beside(images: Images, numbers: int) -> Points:
    """Return images with so many numbers of 1/2 below them, in rows of their own, which fill up with zeros."""
    count, channels, _, width = images.shape
    rows = _rows(channels, width, numbers)
    room = images.new_zeros(count, channels * rows * width)
    room[:, :numbers] = 0.5
    return torch.cat([images, room.view(count, channels, rows, width)], dim=2)


def parts(points: Points, numbers: int) -> tuple[Images, Float[Tensor, "batch numbers"]]:
    """Return the images, and the numbers that lie below them."""
    rows = _rows(points.shape[1], points.shape[3], numbers)
    return points[:, :, :-rows], points[:, :, -rows:].flatten(1)[:, :numbers]


def _rows(channels: int, width: int, numbers: int) -> int:
    return -(-numbers // (channels * width))
