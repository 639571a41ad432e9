"""What may be wrong with a model before any attack: signs that a robust accuracy would not mean what it says.

After Carlini et al. 2019 (On evaluating adversarial robustness) and Tramèr et al., NeurIPS 2020. Each check looks at
each image by itself, so its count does not depend on how the images are split.
"""

import math
from dataclasses import dataclass

import torch

from generalist.attacks.apgd import apgd
from generalist.attacks.losses import Network, margin, ranked, targeted_margin
from generalist.attacks.tiles import logits_of, slopes_of, tile_size
from generalist.randomness import ImageStreams
from generalist.tensors import Images, Labels, Logits, Mask
from generalist.threats import Threat

_SAME = 1e-4  # relative to the largest logit: what rounding may do to an image in other company
_NUDGE = 1e-4  # per pixel, of the finite difference
_SLOPE = 0.5, 2.0  # measured change over the one that the gradient promises
_HUGE_STEPS = 20


@dataclass(frozen=True)
class Findings:
    """Doubts by name, each a mask of images; and the passes of each image."""

    doubts: dict[str, Mask]
    forward: Labels
    backward: Labels


def examine_outputs(network: Network, images: Images, logits: Logits) -> Findings:
    """Ask again, and in other company: is the answer the same, and are these logits?

    Args:
        network: the decision.
        images: one at least.
        logits: its answer to them.
    """
    again = logits_of(network, images)
    half = max(tile_size(images.device) // 2, 1)
    company = []
    for part in images.split(half):
        filler = (1 - part[-1:]).expand(2 * (half - len(part)), *part.shape[1:])
        company.append(logits_of(network, torch.cat([part, 1 - part, filler]))[: len(part)])
    ones = torch.ones(len(images), dtype=torch.int64, device=images.device)
    probabilities = (logits.amin(1) > -1e-5) & (logits.amax(1) < 1 + 1e-5) & ((logits.sum(1) - 1).abs() < 1e-4)
    random = _differ(logits, again)
    doubts = {
        "random": random,
        "batch-dependent": _differ(logits, torch.cat(company)) & ~random,
        "softmax outputs": probabilities,
    }
    return Findings(doubts, 3 * ones, 0 * ones)


def examine_gradients(
    network: Network, images: Images, labels: Labels, threat: Threat, streams: ImageStreams
) -> Findings:
    """Do gradients say how the decision changes, and do they break it where everything is allowed?

    Args:
        network: the decision.
        images: correctly classified ones, one at least.
        labels: int64 [batch].
        threat: whose norm is used.
        streams: random numbers of each image.
    """
    pixels = math.prod(images.shape[1:])
    inside = images * 0.98 + 0.01  # a model may clip its input
    targets = ranked(logits_of(network, inside), labels)[:, 0]
    slopes = slopes_of(network, inside, labels, targeted_margin, targets)
    length = slopes.gradients.double().flatten(1).norm(dim=1)
    direction = (slopes.gradients / length.clamp_min(1e-30).to(images.dtype).view(-1, 1, 1, 1)) * (
        _NUDGE * math.sqrt(pixels)
    )
    ahead, behind = (
        targeted_margin(logits_of(network, inside + sign * direction), labels, targets).double() for sign in (1, -1)
    )
    ratio = (ahead - behind) / (2 * _NUDGE * math.sqrt(pixels) * length)
    mismatch = (length > 0) & ~((ratio > _SLOPE[0]) & (ratio < _SLOPE[1]))
    everything = Threat(threat.norm, {"linf": 1.0, "l2": math.sqrt(pixels), "l1": float(pixels)}[threat.norm])
    starts = images + everything.ball(images).boundary_offset(streams)
    run = apgd(network, images, labels, everything, start=starts, loss=lambda z, y: -margin(z, y), steps=_HUGE_STEPS)
    doubts = {"gradient mismatch": mismatch, "robust at a huge eps": ~run.broken}
    return Findings(doubts, run.forward + 4, run.backward + 1)


def lands_beside(logits: Logits, labels: Labels, classes_named: int) -> Mask:
    """Whether an image ended in class y + C/2 of C: there dummy classes lie that nobody folded back.

    Args:
        logits: of broken images.
        labels: of the same.
        classes_named: labels that occur in the whole batch; of too few nothing can be said.
    """
    half = logits.shape[1] // 2
    suspect = logits.shape[1] >= 4 and logits.shape[1] % 2 == 0 and classes_named >= half / 2
    return (logits.argmax(1) == labels + half) & (labels < half) & suspect


def _differ(logits: Logits, others: Logits) -> Mask:
    scale = logits.abs().amax(1).clamp_min(1e-30)
    return ~((logits - others).abs().amax(1) <= _SAME * scale)
