"""Adversarial images from anywhere: checked as our own are, and taken into the verdict on each image."""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from generalist.attacks.evaluation_state import EvaluationState
from generalist.attacks.losses import Network
from generalist.attacks.model_adapter import check_images, decision_and_views, eval_mode, in_float32
from generalist.attacks.result import AutoAttackResult
from generalist.errors import BadInput
from generalist.tensors import Mask
from generalist.threats import Threat

_ROUNDING = 1e-3
"""Of eps: so far outside of the ball is rounding, of other arithmetic or of a file, and is projected back."""


class Evidence(NamedTuple):
    """What adversarial images show.

    Attributes:
        result: the verdicts with them.
        accepted: images that they break, which stood before.
        outside: images that are further away than the threat allows, or not in [0, 1], and count for nothing.
    """

    result: AutoAttackResult
    accepted: Mask
    outside: Mask


def verify(
    model: nn.Module | Network,
    images: Tensor,
    labels: Tensor,
    adversarial: Tensor,
    threat: Threat,
    *,
    name: str,
    before: AutoAttackResult | None = None,
    batch_size: int = 256,
) -> Evidence:
    """Return what adversarial images show: each counts inside of the ball alone, and where the decision is wrong.

    Args:
        model: from float32 images in [0, 1] to logits [n, classes], as for `autoattack`.
        images: float32 [n, channels, height, width] in [0, 1].
        labels: int64 [n].
        adversarial: float32, shaped as the images; one for each of them, the image itself where there is none.
        threat: a ball.
        name: who made them, for `fooled_by`.
        before: verdicts on the same images, of which the minimum is taken image by image.
        batch_size: images at a time, without effect on verdicts.

    Raises:
        BadInput: shapes differ, there is no ball of pixels, or `before` is of another model or of other images.
    """
    check_images(images, labels)
    if adversarial.shape != images.shape or adversarial.dtype != images.dtype:
        raise BadInput(
            f"the adversarial images are {adversarial.dtype} {list(adversarial.shape)}, the images {images.dtype}"
            f" {list(images.shape)}: give one for each, of the same kind and order"
        )
    if threat.space is not None:
        raise BadInput(f"images can't be checked against {threat}, where there is no ball of pixels: name a norm")
    with eval_mode(model), torch.inference_mode(mode=False):
        images, labels = images.detach().clone(), labels.detach().clone()
        decision = in_float32(decision_and_views(model, None)[0], images.device)
        evaluation = EvaluationState(decision, images, labels, threat, batch_size)
        evaluation.clean_pass()
        if before is not None and not torch.equal(before.clean, evaluation.clean):
            raise BadInput("the verdicts are of another model or of other images: give those of these")
        in_range = (adversarial >= 0) & (adversarial <= 1)  # what is no number is not
        outside = ~in_range.flatten(1).all(1)
        outside |= ~(threat.distance(adversarial, images) <= float(threat.eps) * (1 + _ROUNDING))
        standing = evaluation.robust.clone() if before is None else before.robust
        rows = (standing & ~outside).nonzero()[:, 0]
        evaluation.present(name, rows, threat.project(adversarial[rows], images[rows]))
        found = evaluation.result()
    accepted = standing & evaluation.clean & ~found.robust
    return Evidence(found if before is None else _lower(before, found, accepted), accepted, outside)


def _lower(before: AutoAttackResult, found: AutoAttackResult, accepted: Mask) -> AutoAttackResult:
    """Return verdicts with what was accepted beside them."""
    kept = before.adversarial if before.adversarial.numel() else found.adversarial
    fooled_by = [
        new if broken else old
        for old, new, broken in zip(before.fooled_by, found.fooled_by, accepted.tolist(), strict=True)
    ]
    return replace(
        before,
        robust=before.robust & ~accepted,
        fooled_by=fooled_by,
        adversarial=torch.where(accepted[:, None, None, None], found.adversarial, kept),
        margins=torch.where(accepted, found.margins, before.margins),
        correct=torch.where(accepted, found.correct, before.correct),
        passes=replace(before.passes, forward=before.passes.forward + found.passes.forward),
    )
