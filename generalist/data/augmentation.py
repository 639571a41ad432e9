"""Augmentations as pure functions of images and a generator; every sample draws its own."""

import math

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn import functional as F

from generalist.tensors import Images

_DEGREES = 15


def augment(images: Images, names: tuple[str, ...], generator: torch.Generator) -> Images:
    """Apply augmentations in the order of `names`; with none, the images come back and nothing is drawn.

    Args:
        images: float32, pixels in [0, 1], and so is the result.
        names: out of `crop`, `flip`, `cutout` and `rotate`.
        generator: on the device of the images.
    """
    for name in names:
        images = _AUGMENTATIONS[name](images, generator)
    return images


def crop(images: Images, generator: torch.Generator) -> Images:
    """Return a random crop of the original size out of the image padded with zeros.

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


def cutout(images: Images, generator: torch.Generator) -> Images:
    """Blacken a rectangle of half the height and half the width, centred at a random pixel.

    At 32×32 these are the 16×16 pixels that DeVries and Taylor (2017) chose for CIFAR-10. As theirs, the
    rectangle may reach beyond the image, so not all lose equally much. They fill with the mean of the data;
    here it is 0, as in the padding of `crop`, since images are normalised inside the network.
    """
    count, _, height, width = images.shape
    rows = _bands(count, height, images.device, generator)
    columns = _bands(count, width, images.device, generator)
    return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0)


def rotate(images: Images, generator: torch.Generator) -> Images:
    """Turn each image about its centre by up to 15 degrees either way: bilinear, black where nothing was.

    The range is that of Cireşan et al. (2010) for handwritten digits.
    """
    count, _, height, width = images.shape
    draws = torch.rand((count, 1, 1), device=images.device, generator=generator)
    angles = (2 * draws - 1) * math.radians(_DEGREES)
    # In pixels from the centre: in grid_sample's own units, images that are not square would be sheared.
    down = (torch.arange(height, device=images.device) - (height - 1) / 2)[:, None]
    right = (torch.arange(width, device=images.device) - (width - 1) / 2)[None, :]
    across = angles.cos() * right + angles.sin() * down
    along = angles.cos() * down - angles.sin() * right
    grid = torch.stack((across * (2 / width), along * (2 / height)), dim=3)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False).clamp_(0, 1)


def _padding(side: int) -> int:
    return max(1, side // 8)


def _offsets(count: int, largest: int, device: torch.device, generator: torch.Generator) -> torch.Tensor:
    return torch.randint(largest + 1, (count,), device=device, generator=generator)


def _bands(count: int, side: int, device: torch.device, generator: torch.Generator) -> Bool[Tensor, "count side"]:
    """Return which of `side` places lie in a band of half of them, centred at a random one."""
    length = max(1, side // 2)
    starts = torch.randint(side, (count, 1), device=device, generator=generator) - length // 2
    places = torch.arange(side, device=device)
    return (places >= starts) & (places < starts + length)


_AUGMENTATIONS = {"crop": crop, "flip": flip, "cutout": cutout, "rotate": rotate}
