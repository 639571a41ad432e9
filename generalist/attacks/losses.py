"""What attacks raise or lower, image by image, and when an image counts as broken."""

from collections.abc import Callable

import torch
from torch.nn import functional as F

from generalist.tensors import Images, Labels, Logits, Mask, PerImage

Network = Callable[[Images], Logits]
"""A deterministic function from images in [0, 1] to logits, each image on its own."""
Loss = Callable[[Logits, Labels], PerImage]
"""What gradient attacks raise."""


def cross_entropy(logits: Logits, labels: Labels) -> PerImage:
    """-log softmax(z)_y."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Logits, labels: Labels) -> PerImage:
    """z_y - max of the other z: by how much the label wins; Square lowers it (Andriushchenko et al., ECCV 2020)."""
    own = labels[:, None]
    return logits.gather(1, own).squeeze(1) - logits.scatter(1, own, -torch.inf).amax(1)


def fooled(logits: Logits, labels: Labels) -> Mask:
    """Whether the label does not strictly win: a tie counts as broken, and so does what is not a number."""
    own = labels[:, None]
    return ~(logits.gather(1, own).squeeze(1) > logits.scatter(1, own, -torch.inf).amax(1))
