"""Localized: pixels inside of a mask may each change by up to eps, those outside stay."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from pydantic import Field, SerializationInfo, field_serializer, model_validator
from torch import Tensor

from generalist.config import Quantity, digest
from generalist.config.bounds import Fraction, Positive
from generalist.errors import BadInput
from generalist.tensors import Images
from generalist.threats.spaces.contract import Points, Space
from generalist.untrusted import printable

_NAMED = ("centre", "background")


class Localized(Space):
    """Linf inside of a mask: a box around the image whose sides are 0 outside.

    Rothberg et al. train on such images of the background beside clean ones (localized adversarial training).
    """

    symbol: ClassVar[str] = "localized L∞"
    moves_pixels: ClassVar[bool] = True

    eps: Positive = Field(lt=1, description="by how much a pixel inside may change, in pixel units, such as 8/255")
    mask: str = Field(
        "background",
        description="centre; background, which is all but that; or a folder of masks of the images' size, or one mask:"
        " pixels may change where any of them isn't black",
    )
    share: Fraction = Field(Quantity("0.5"), description="of height and width, that the centre has")

    @model_validator(mode="after")
    def _share_is_of_the_centre(self) -> "Localized":
        if self.mask not in _NAMED and "share" in self.model_fields_set:
            raise ValueError("'share' says how large the centre is: leave it out, as 'mask' names images")
        return self

    @field_serializer("mask")
    def _by_content(self, mask: str, info: SerializationInfo) -> str:
        """Give states the keys of what the mask is; people see where it lies."""
        context: Any = info.context
        return f"mask {self._digest}" if context and context.get("canonical") and mask not in _NAMED else mask

    @property
    def paths(self) -> tuple[str, ...]:
        return () if self.mask in _NAMED else (self.mask,)

    @functools.cached_property
    def _found(self) -> Bool[np.ndarray, "height width"]:
        """The mask of a path, read once: attacks ask for it at every step."""
        return _read(self.mask)

    @property
    def _digest(self) -> str:
        return digest(self._found.astype(int).tolist())

    def told(self) -> str:
        named = self.mask in _NAMED
        return f"mask {self.mask} share {self.share.written}" if named else f"mask {self._digest[:8]}"

    def points(self, images: Images) -> Points:
        return images

    def images(self, points: Points) -> Images:
        return torch.where(self._inside(points), points, points.detach())

    def free(self, points: Points) -> Float[Tensor, "1 channels rows columns"]:
        return self._inside(points).expand(1, *points.shape[1:]).to(points.dtype)

    def check_shape(self, shape: Sequence[int]) -> None:
        _, height, width = shape
        if self.mask not in _NAMED and (found := self._found.shape) != (height, width):
            raise BadInput(
                f"the mask {printable(self.mask)} is of {found[0]}x{found[1]} pixels, but images are of"
                f" {height}x{width}: give masks of that size"
            )
        if not self._mask(height, width).any():
            raise BadInput(
                f"the mask {printable(self.mask)} lets no pixel of {height}x{width} images change: give one that isn't"
                " empty"
            )

    def _inside(self, points: Points) -> Bool[Tensor, "1 1 rows columns"]:
        """Return the mask where points are: it is taken to their device once, as attacks ask at every step."""
        height, width = points.shape[2:]
        key = (height, width, points.device)
        if key not in self._placed:
            self._placed[key] = torch.from_numpy(self._mask(height, width)).to(points.device)[None, None]
        return self._placed[key]

    @functools.cached_property
    def _placed(self) -> dict[tuple[int, int, torch.device], Bool[Tensor, "1 1 rows columns"]]:
        return {}

    def _mask(self, height: int, width: int) -> Bool[np.ndarray, "height width"]:
        """Return where pixels may change."""
        if self.mask not in _NAMED:
            return self._found
        centre = np.zeros((height, width), dtype=np.bool_)
        rows, columns = (max(round(float(self.share) * side), 1) for side in (height, width))
        top, left = (height - rows) // 2, (width - columns) // 2
        centre[top : top + rows, left : left + columns] = True
        return centre if self.mask == "centre" else ~centre


def _read(written: str) -> Bool[np.ndarray, "height width"]:
    """Return where any mask below a path is not black.

    Raises:
        BadInput: there is no image, or one of another size, or one that can't be read (`UnreadableImage`).
    """
    from generalist.data.decoding import content, decode  # both need Pillow, which no other threat does
    from generalist.data.image_files import find

    path = Path(written).expanduser()
    files = find(path).files if path.is_dir() else [path] if path.is_file() else []
    if not files:
        raise BadInput(
            f"the mask {printable(written)} is neither an image nor a folder with one: name one by 'mask', or set it to"
            f" {' or '.join(_NAMED)}"
        )
    masks = [decode(content(file), size=None, grayscale=True, path=file)[0] > 0 for file in files]
    sizes = {mask.shape for mask in masks}
    if len(sizes) > 1:
        told = " and ".join(f"{height}x{width}" for height, width in sorted(sizes))
        raise BadInput(f"the masks of {printable(path)} are of {told} pixels: give all the same size")
    joined: Bool[np.ndarray, "height width"] = np.logical_or.reduce(masks)
    return joined
