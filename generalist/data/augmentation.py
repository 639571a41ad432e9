"""Augmentations as pure functions of images and a generator; every sample draws its own."""

import torch
from torch.nn import functional as F

from generalist.tensors import Images


def augment(images: Images, names: tuple[str, ...], generator: torch.Generator) -> Images:
    """Apply augmentations in the order of `names`; with none, the images come back and nothing is drawn.

    Args:
        images: float32, pixels in [0, 1], and so is the result.
        names: out of `crop` and `flip`.
        generator: on the device of the images.
    """
    for name in names:
        images = _AUGMENTATIONS[name](images, generator)
    return images


def crop(images: Images, generator: torch.Generator) -> Images:
    """A random crop of the original size out of the image padded with zeros.

    The padding is an eighth of the height above and below, an eighth of the width left and right, one
    pixel at least: 4 at 32×32, as is usual for CIFAR-10 (He et al. 2016, section 4.2).
    """
    count, _, height, width = images.shape
    down, right = _padding(height), _padding(width)
    padded = F.pad(images, (right, right, down, down))
    tops = _offsets(count, 2 * down, images.device, generator)
    lefts = _offsets(count, 2 * right, images.device, generator)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view: every crop of every image
    return windows[torch.arange(count, device=images.device), :, tops, lefts]


def flip(images: Images, generator: torch.Generator) -> Images:
    """Mirror each image left to right with probability one half."""
    chosen = torch.rand(len(images), device=images.device, generator=generator) < 0.5
    return torch.where(chosen[:, None, None, None], images.flip(3), images)


def _padding(side: int) -> int:
    return max(1, side // 8)


def _offsets(count: int, largest: int, device: torch.device, generator: torch.Generator) -> torch.Tensor:
    return torch.randint(largest + 1, (count,), device=device, generator=generator)


_AUGMENTATIONS = {"crop": crop, "flip": flip}
