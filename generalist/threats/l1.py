"""L1: the sum of all changes."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from generalist.randomness import ImageStreams, exponential_like, uniform_like
from generalist.tensors import Images
from generalist.threats.contract import Ball, Radius
from generalist.threats.geometry.hyperplane_projection import Each, Rows, steepest_first
from generalist.threats.geometry.square_patterns import Peaks


class L1Ball(Ball):
    """The sum of all changes may grow up to eps; the projection is the nearest point of ball and pixel range at once.

    A point that is far beyond the pixel range would otherwise lose most of its budget to clipping (Croce and
    Hein, ICML 2021, section 3).
    """

    symbol = "L1"
    squares = Peaks
    sparse = True

    SHARE = 0.05  # of the pixels that a step moves: a single one would soon reach the range (Tramèr and Boneh 2019)

    @staticmethod
    def whole_range(pixels: float) -> float:
        return float(pixels)

    def safe_radius(self, eps: Radius, unit: float) -> Radius:
        return eps  # `project_` rounds towards the images

    @staticmethod
    def norm(offsets: Images) -> Float64[Tensor, " batch"]:
        return offsets.double().abs().flatten(1).sum(1)

    @classmethod
    def dual_norm(cls, gradient: Images) -> Float64[Tensor, " batch"]:
        return gradient.double().abs().flatten(1).amax(1)

    @staticmethod
    def fill(steepness: Rows, room: Rows, missing: Each) -> Rows:
        return steepest_first(steepness, room, missing)

    @classmethod
    def steepest_ascent(cls, gradient: Images) -> Images:
        """Return the best of the steps along the steepest twentieth of the pixels."""
        return sparse_ascent(gradient, torch.full_like(gradient[:, 0, 0, 0], cls.SHARE))

    def project_(self, points: Images) -> Images:
        """Take the nearest point: soft thresholding, cut at the pixel range (Croce and Hein, ICML 2021, equation 7)."""
        images = self.images.double()
        wanted = points.double().sub_(images)
        room = torch.where(wanted > 0, 1 - images, images)
        size = wanted.abs()
        radius = self.radius.flatten(1) if isinstance(self.radius, Tensor) else self.radius
        threshold = _threshold(size.flatten(1), room.flatten(1), radius).view(-1, 1, 1, 1)
        offsets = torch.minimum((size - threshold).clamp_min_(0), room).mul_(wanted.sign_())
        points.copy_(images + offsets)
        # Half a unit of each pixel adds up in this norm, so rounding goes towards the image.
        beyond = (points.double() - images).abs_() > offsets.abs()
        return points.copy_(torch.where(beyond, torch.nextafter(points, self.images), points))

    def random_offset(self, generator: torch.Generator) -> Images:
        """Draw exponential sizes over their sum and one more, with random signs: uniform (Calafiore et al. 1998)."""
        sizes = exponential_like(self.images, generator=generator)
        rest = exponential_like(sizes[:, :1, :1, :1], generator=generator)
        signs = uniform_like(sizes, -1.0, 1.0, generator=generator).sign_()
        total = sizes.sum(dim=(1, 2, 3), keepdim=True).add_(rest)
        return sizes.mul_(signs).div_(total).mul_(self.radius)

    def boundary_offset(self, streams: ImageStreams) -> Images:
        """Return standard normal numbers; `project_` brings them to the ball (Croce and Hein's published code)."""
        return streams.normal(0, *self.images.shape[1:]).to(self.images.dtype)


def sparse_ascent(gradient: Images, shares: Float[Tensor, " batch"]) -> Images:
    """Return the signs of the steepest share of each image's pixels, over their number: a step of length 1 in L1."""
    flat = gradient.flatten(1)
    size = flat.abs()
    first = ((1 - shares) * flat.shape[1]).clamp(0, flat.shape[1] - 1).long()[:, None]
    signs = torch.where(size >= size.sort(dim=1).values.gather(1, first), flat.sign(), 0)
    return (signs / signs.count_nonzero(dim=1).clamp_min(1)[:, None]).view_as(gradient)


def _threshold(
    size: Float64[Tensor, "batch pixels"], room: Float64[Tensor, "batch pixels"], radius: float | Tensor
) -> Float64[Tensor, "batch 1"]:
    """Return the least λ >= 0 with Σ min(max(size - λ, 0), room) <= radius.

    The sum falls with slope -1 for each pixel between λ = size and λ = size - room, so between two such
    corners, in falling order, it is a line.
    """
    corners = torch.cat([size, (size - room).clamp_min(0)], dim=1)
    turns = torch.cat([torch.ones_like(size), -torch.ones_like(size)], dim=1)
    corners, order = corners.sort(dim=1, descending=True, stable=True)
    turns = turns.gather(1, order)
    slopes, sums = turns.cumsum(1), (turns * corners).cumsum(1)
    last = ((sums - slopes * corners) < radius).sum(1, keepdim=True).sub_(1).clamp_min_(0)
    threshold = (sums.gather(1, last) - radius) / slopes.gather(1, last).clamp_min_(1)
    fits = torch.minimum(size, room).sum(1, keepdim=True) <= radius
    return torch.where(fits, 0, torch.minimum(threshold.clamp_min_(0), corners[:, :1]))
