"""What attacks raise or lower, image by image, and when an image counts as broken.

z are the logits of an image, y its label, t the class an attack aims at, z_(k) the k-th largest logit.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from generalist.models import LossView
from generalist.tensors import Features, Images, Labels, Logits, Mask, PerImage

Network = Callable[[Images], Logits]
"""A deterministic function from images in [0, 1] to logits, each image on its own."""
Reference = Labels | Logits | Features
"""What a loss compares outputs with: labels, log-probabilities (as the divergence of TRADES does), or features."""
Loss = Callable[..., PerImage]
"""What gradient attacks raise: `loss(logits, reference)`, or `loss(logits, labels, targets)` if it aims at a class."""


def loss_through(view: Network | None, usual: Loss) -> Loss:
    """Return what an attack raises through a view: the view's own loss, or the attack's."""
    return view.loss if isinstance(view, LossView) else usual


def cross_entropy(logits: Logits, labels: Labels) -> PerImage:
    """Return -log softmax(z)_y."""
    return F.cross_entropy(logits, labels, reduction="none")


def kl_divergence(logits: Logits, reference: Logits) -> PerImage:
    """Return KL(p || softmax z), where the reference is log p: how far from it a prediction is (Zhang et al. 2019)."""
    return F.kl_div(F.log_softmax(logits, dim=1), reference, reduction="none", log_target=True).sum(dim=1)


def squared_distance(features: Features, reference: Features) -> PerImage:
    """Return ||f - f_ref||^2, summed over dimensions."""
    return (features - reference).square().sum(dim=1)


def scaled_cross_entropy(logits: Logits, labels: Labels) -> PerImage:
    """Return cross-entropy of z over its spread max z - min z, a constant for the gradient, at a temperature of 1/10.

    Where logits are large, softmax is 1 in float32 and cross-entropy is flat; this one is the same at every scale.
    """
    spread = (logits.amax(1) - logits.amin(1)).detach()
    return cross_entropy(logits * (10 / spread.clamp_min(_TINY))[:, None], labels)


def dlr(logits: Logits, labels: Labels) -> PerImage:
    """Return -(z_y - max of the other z) / (z_(1) - z_(3)), free of scale and shift (Croce and Hein 2020, equation 6).

    With two classes there is no z_(3): then it is the margin alone.
    """
    best = logits.topk(min(3, logits.shape[1])).values
    return -margin(logits, labels) / _spread(best[:, 0], best[:, 2:])


def targeted_dlr(logits: Logits, labels: Labels, targets: Labels) -> PerImage:
    """Return -(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2) (Croce and Hein 2020, equation 7).

    With three classes the mean is that of z_(2) and z_(3), as z_(3) alone would make the loss of the third class
    constant; with two it is the margin alone.
    """
    classes = logits.shape[1]
    best = logits.topk(min(4, classes)).values
    return targeted_margin(logits, labels, targets) / _spread(best[:, 0], best[:, 1 if classes == 3 else 2 :])


def _spread(largest: PerImage, others: Tensor) -> PerImage:
    """Return how far the largest logit is above the mean of the others [batch, k]; 1 where there are none."""
    return largest - others.mean(1) + 1e-12 if others.shape[1] else torch.ones_like(largest)


def targeted_margin(logits: Logits, labels: Labels, targets: Labels) -> PerImage:
    """Return z_t - z_y (Gowal et al. 2019, MultiTargeted)."""
    return (logits.gather(1, targets[:, None]) - logits.gather(1, labels[:, None])).squeeze(1)


def margin(logits: Logits, labels: Labels) -> PerImage:
    """Return z_y - max of the other z: how far the label wins; Square lowers it (Andriushchenko et al., ECCV 2020)."""
    column = labels[:, None]
    return logits.gather(1, column).squeeze(1) - logits.scatter(1, column, -torch.inf).amax(1)


def misclassified(logits: Logits, labels: Labels) -> Mask:
    """Return whether the label does not strictly win: a tie counts as broken, and so does what is not a number."""
    return ~(margin(logits, labels) > 0)


def other_classes_by_logit(logits: Logits, labels: Labels) -> Tensor:
    """Return the other classes, likeliest first: int64 [batch, classes - 1]."""
    return logits.scatter(1, labels[:, None], -torch.inf).argsort(dim=1, descending=True, stable=True)[:, :-1]


_TINY = 1e-30
