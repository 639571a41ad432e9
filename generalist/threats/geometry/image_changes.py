"""Changes of whole images, differentiable in their sizes, one for each image; a size of 0 changes no bit.

Functions and sums are in float64, as a library's float32 ones may round differently by the place in memory.
"""

import functools
import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from generalist.tensors import Images, PerImage

_SHARPEST = 1e-3
"""Pixels: with a smaller standard deviation a blur is none, and its slope is 0 in place of 0 / 0."""

Places = Float[Tensor, "batch height width"]


def warp(images: Images, degrees: PerImage, right: PerImage, down: PerImage, growth: PerImage) -> Images:
    """Return images turned, made larger and then moved, about their middle; what comes from outside is 0.

    Bilinear, by the inverse map: each place of the result is looked up in the image.

    Args:
        images: [batch, channels, height, width].
        degrees: counter-clockwise.
        right: pixels.
        down: pixels.
        growth: factor on lengths, less 1; above -1.
    """
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device, dtype=images.dtype).view(1, -1, 1)
    columns = torch.arange(width, device=images.device, dtype=images.dtype).view(1, 1, -1)
    angle = torch.deg2rad(degrees.double()).view(-1, 1, 1)
    factor = 1 + growth.double().view(-1, 1, 1)
    y = rows - down.view(-1, 1, 1) - (height - 1) / 2
    x = columns - right.view(-1, 1, 1) - (width - 1) / 2
    # As differences, so that nothing is rounded where nothing is changed.
    less_cos = (torch.cos(angle) / factor - 1).to(images.dtype)
    sin = (torch.sin(angle) / factor).to(images.dtype)
    source_y = rows - down.view(-1, 1, 1) + (less_cos * y + sin * x)
    source_x = columns - right.view(-1, 1, 1) + (less_cos * x - sin * y)
    return _looked_up(images, source_y, source_x)


def _looked_up(images: Images, rows: Places, columns: Places) -> Images:
    """Return the image at some places, the mean of the four pixels around each by how near they are."""
    count, channels, height, width = images.shape
    flat, total = images.flatten(2), torch.zeros_like(images)
    top, left = rows.detach().floor(), columns.detach().floor()
    for row, by_row in ((top, top + 1 - rows), (top + 1, rows - top)):
        for column, by_column in ((left, left + 1 - columns), (left + 1, columns - left)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            place = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
            index = place.long().flatten(1)[:, None].expand(count, channels, height * width)
            found = flat.gather(2, index).view_as(images)
            total = total + found * (by_row * by_column * inside)[:, None]
    return total


def blur(images: Images, deviation: PerImage, largest: float) -> Images:
    """Return images under a Gaussian, cut at three times the `largest` deviation (pixels); edges are repeated."""
    reach = max(math.ceil(3 * largest), 1)
    offsets = torch.arange(-reach, reach + 1, device=images.device, dtype=torch.float64)
    weights = torch.exp(-(offsets**2) / (2 * deviation.double().clamp_min(_SHARPEST)[:, None] ** 2))
    weights = (weights / weights.sum(1, keepdim=True)).to(images.dtype).view(len(images), -1, 1, 1, 1)
    for dim, padding in ((2, (0, 0, reach, reach)), (3, (reach, reach, 0, 0))):
        padded, length = F.pad(images, padding, mode="replicate"), images.shape[dim]
        images = functools.reduce(
            Tensor.add, (weights[:, k] * padded.narrow(dim, k, length) for k in range(len(offsets)))
        )
    return images


def contrast(images: Images, growth: PerImage) -> Images:
    """Return images with their distance from their own mean made larger by a factor, less 1."""
    mean = images.double().mean(dim=(1, 2, 3), keepdim=True).to(images.dtype)
    return images + growth.view(-1, 1, 1, 1) * (images - mean)


def brightness(images: Images, more: PerImage) -> Images:
    """Return images with a number added to every pixel."""
    return images + more.view(-1, 1, 1, 1)
