"""Attributes: an image is turned, moved, made larger, brighter, richer in contrast or blurred, within ranges."""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from generalist.config import Quantity
from generalist.config.bounds import Count, Positive
from generalist.config.section import Section
from generalist.errors import BadInput
from generalist.tensors import Images
from generalist.threats.geometry import image_changes
from generalist.threats.spaces.contract import Change, Points, Space, beside, parts

_MOST = 100_000
"""Points of a grid: each is a pass of every image."""


class Grid(Section):
    """How many values of each attribute a grid has, at equal distances; an odd number has none in the middle too."""

    rotation: Count = Field(31, le=1000, description="as Engstrom et al. (ICML 2019) have it")
    translation: Count = Field(5, le=1000, description="in each direction; as they have it")
    scale: Count = Field(3, le=1000)
    brightness: Count = Field(3, le=1000)
    contrast: Count = Field(3, le=1000)
    blur: Count = Field(2, le=1000, description="from none to the whole range")


class Attributes(Space):
    """Rotation, translation and scale, then blur, contrast and brightness, each by a number of the image's own.

    A number u in [-1, 1] of each attribute (two of translation) says how much of its range acts: degrees are rotation
    times u. Natural perturbations are these in Gokhale et al. (AAAI 2021, attribute-guided adversarial training).
    """

    symbol: ClassVar[str] = "attributes"
    unit: ClassVar[float] = 0.5  # of a point, whose numbers run from 0 (u = -1) to 1
    members: ClassVar[tuple[str, ...] | None] = ("apgd-ce", "apgd-dlr", "apgd-t", "odi-t")

    eps: Positive = Field(Quantity(1), le=1, description="share of all ranges that is allowed")
    rotation: Positive | None = Field(None, le=180, description="degrees, to either side")
    translation: Positive | None = Field(None, le=1, description="share of the image's height and width, to all sides")
    scale: Positive | None = Field(None, lt=1, description="of the factor on lengths, which is 1 ± this")
    brightness: Positive | None = Field(None, le=1, description="pixel units, added or taken away")
    contrast: Positive | None = Field(None, le=1, description="of the factor on contrast, which is 1 ± this")
    blur: Positive | None = Field(None, le=100, description="standard deviation of a Gaussian, in pixels; from none on")
    grid: Grid = Field(Grid(), exclude_if=lambda grid: grid == Grid(), description="of the worst-of-grid attack")

    @model_validator(mode="after")
    def _changes_something(self) -> "Attributes":
        if not self._names:
            raise ValueError("'attributes' change nothing: give one at least of rotation, translation, scale,"
                             " brightness, contrast and blur its range, such as rotation: 30")  # fmt: skip
        if (count := math.prod(self._counts)) > _MOST:
            raise ValueError(
                f"the grid has {count} points, each of which is a pass of every image: give it {_MOST} at most"
            )
        return self

    @property
    def _names(self) -> list[str]:
        """The attributes that are changed; translation is two."""
        order = ("rotation", "translation", "translation", "scale", "blur", "contrast", "brightness")
        return [name for name in order if getattr(self, name) is not None]

    @property
    def _counts(self) -> list[int]:
        return [getattr(self.grid, name) for name in self._names]

    def points(self, images: Images) -> Points:
        return beside(images, len(self._names))

    def images(self, points: Points) -> Images:
        images, numbers = parts(points, len(self._names))
        return self._made(images, 2 * numbers - 1)

    def free(self, points: Points) -> Float[Tensor, "1 channels rows columns"]:
        black, _ = parts(points.new_zeros(1, *points.shape[1:]), len(self._names))
        return (beside(black, len(self._names)) > 0).to(points.dtype)

    def changes(self) -> Sequence[Change]:
        return [functools.partial(self.changed, shares=choice) for choice in self.grid_points()]

    def grid_points(self) -> list[Float[Tensor, " numbers"]]:
        """Return the shares of each range at every point of the grid, in [-1, 1]."""
        values = []
        for name, count in zip(self._names, self._counts, strict=True):
            whole = torch.linspace(0 if name == "blur" else -1, 1, count) if count > 1 else torch.zeros(1)
            values.append((whole * float(self.eps)).tolist())
        return [torch.tensor(choice) for choice in itertools.product(*values)]

    def changed(self, images: Images, shares: Float[Tensor, " numbers"]) -> Images:
        """Return images changed by the same shares of each range."""
        return self._made(images, shares.to(images).expand(len(images), -1))

    def grid_title(self) -> str:
        return f"grid {'x'.join(map(str, self._counts))}"

    def check_shape(self, shape: Sequence[int]) -> None:
        if self.blur is not None and 3 * float(self.blur) > max(shape[1:]):
            raise BadInput(
                f"a blur of {self.blur.written} pixels leaves nothing of images of {shape[1]}x{shape[2]}: give less"
            )

    def _made(self, images: Images, shares: Float[Tensor, "batch numbers"]) -> Images:
        """Return images changed by so much of each range."""
        sizes: dict[str, list[Tensor]] = {}
        for name, share in zip(self._names, shares.unbind(1), strict=True):
            sizes.setdefault(name, []).append(share * float(getattr(self, name)))
        height, width = images.shape[2:]
        none = [torch.zeros_like(shares[:, 0])]
        if sizes.keys() & {"rotation", "translation", "scale"}:
            right, down = sizes.get("translation", 2 * none)
            turned, larger = sizes.get("rotation", none)[0], sizes.get("scale", none)[0]
            images = image_changes.warp(images, turned, right * width, down * height, larger)
        if self.blur is not None:
            images = image_changes.blur(images, sizes["blur"][0].abs(), float(self.blur))
        if self.contrast is not None:
            images = image_changes.contrast(images, sizes["contrast"][0])
        if self.brightness is not None:
            images = image_changes.brightness(images, sizes["brightness"][0])
        return images.clamp(0, 1)
