"""The vocabulary of shapes; tests check it at run time (`make test` installs jaxtyping's hook)."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Images = Float[Tensor, "batch channels height width"]
"""Pixels in [0, 1]."""
AttackedImages = Float[Tensor, "batch *attacks channels height width"]
"""Of each image what one attack makes of it, or what each of several does: [batch, attacks, C, H, W]."""
Pixels = Float[Tensor, "batch pixels"]
"""Images flattened per sample."""
Labels = Int[Tensor, " batch"]
"""Class indices, int64."""
Logits = Float[Tensor, "batch classes"]
Features = Float[Tensor, "batch features"]
"""What a network's last linear layer gets."""
PerImage = Float[Tensor, " batch"]
"""One number per image."""
Mask = Bool[Tensor, " batch"]

Weights = dict[str, Tensor]
"""Parameters and buffers of a model by name, as in `torch.nn.Module.state_dict`."""


@dataclass(frozen=True)
class Batch:
    """One training batch on the device.

    Attributes:
        images: float32, pixels in [0, 1], after augmentation.
        labels: int64 class indices.
        ids: int64 positions of the samples in the training split, for per-sample tables.
        second: another augmentation of the same images, where the objective needs "two_views".
        unlabelled: as many images without labels, augmented alike, where the objective needs "unlabelled".
        condition: lambda of each image, where the objective draws them; see `Objective.conditions`.
    """

    images: Images
    labels: Labels
    ids: Labels
    second: Images | None = None
    unlabelled: Images | None = None
    condition: PerImage | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, rows: slice) -> "Batch":
        """Return some of its samples."""
        others = (None if it is None else it[rows] for it in (self.second, self.unlabelled, self.condition))
        return Batch(self.images[rows], self.labels[rows], self.ids[rows], *others)

    def views(self) -> tuple["Batch", "Batch"]:
        """Return the samples by their first and by their second augmentation.

        Raises:
            TypeError: there is one augmentation only.
        """
        if self.second is None:
            raise TypeError("a batch of one view: an objective that asks for two says that it needs them")
        return replace(self, second=None), replace(self, images=self.second, second=None)


@dataclass(frozen=True)
class ImageShape:
    """What a model is built for.

    Attributes:
        channels, height, width: of one image.
        classes: number of classes.
        mean, std: of the training pixels in [0, 1], per channel; the model normalises by them inside.
    """

    channels: int
    height: int
    width: int
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def to_unit(images: torch.Tensor) -> Tensor:
    """Turn uint8 [.., C, H, W] into float32 in [0, 1]."""
    return images.to(torch.float32).div_(255)
