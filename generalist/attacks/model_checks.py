"""What may be wrong with a model before any attack: signs that a robust accuracy would not mean what it says.

After Carlini et al. 2019 (On evaluating adversarial robustness) and Tramèr et al., NeurIPS 2020. Each check looks at
each image by itself, so its count does not depend on how the images are split.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from generalist.attacks.apgd import apgd
from generalist.attacks.attack_target import AttackTarget
from generalist.attacks.fixed_batches import logits_of, loss_gradients_of, tile_size
from generalist.attacks.losses import Network, margin, other_classes_by_logit, targeted_margin
from generalist.errors import BadInput
from generalist.randomness import ImageStreams
from generalist.tensors import Images, Labels, Logits, Mask
from generalist.threats import Threat

_SAME = 1e-4  # relative to the largest logit: what rounding may change in a batch with other images
_JITTER = 1e-3  # per pixel: off the kinks on flat areas, where windows of a pooling tie
_SLOPE = 0.5, 2.0  # measured change over the one that the gradient promises
_LENGTHS = 1, 2, 4  # of finite differences, in the shortest one
_SHORTEST, _LONGEST = 1e-6, 1e-3  # of the shortest: as float64 allows; per pixel, however much rounding hides
_ROUNDING = 32  # units of the largest logit by which a pass may be wrong
_CLEAR = 4  # times as much is the shortest change that a difference looks for
_FLAT = 1e-4  # of the logits' spread, over a length of 1: a slope below it is as good as none
_SAME_NETWORK = 0.05  # of that spread: as far may a copy in float64 be from its network
_HUGE_STEPS = 20


@dataclass(frozen=True)
class FlaggedImages:
    """Doubts by name, each a mask of images; and the passes of each image."""

    flag_counts: dict[str, Mask]
    forward: Labels
    backward: Labels


def check_outputs(network: Network, images: Images, logits: Logits) -> FlaggedImages:
    """Ask again, also in batches with other images: is the answer the same, and are these logits?

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
    flag_counts = {
        "random": random,
        "batch-dependent": _differ(logits, torch.cat(company)) & ~random,
        "softmax outputs": probabilities,
    }
    return FlaggedImages(flag_counts, 3 * ones, 0 * ones)


def check_gradients(
    network: Network,
    images: Images,
    labels: Labels,
    threat: Threat,
    streams: ImageStreams,
    *,
    precise: Network | None = None,
) -> FlaggedImages:
    """Do gradients say how the decision changes, and do they break it where everything is allowed?

    Args:
        network: the decision.
        images: correctly classified ones, one at least.
        labels: int64 [batch].
        threat: whose norm is used.
        streams: random numbers of each image.
        precise: a copy that computes in float64, to measure changes by; images for which it fails or is another
            network are measured in float32.
    """
    pixels = math.prod(images.shape[1:])
    mismatch, passes = _mismatch(network, precise, images, labels, streams.child("nudge"))
    everything = threat.everything(pixels)
    if everything is None:
        return FlaggedImages({"gradient mismatch": mismatch}, passes, torch.ones_like(passes))
    starts = images + everything.ball(images).boundary_offset(streams)
    target, cost = AttackTarget(network).counted(images)
    run = apgd(target, images, labels, everything, start=starts, loss=lambda z, y: -margin(z, y), steps=_HUGE_STEPS)
    flag_counts = {"gradient mismatch": mismatch, "robust at a huge eps": ~run.broken}
    return FlaggedImages(flag_counts, cost.forward + passes, cost.backward + 1)


@dataclass(frozen=True)
class _LinearPredictions:
    """What gradients say about the lead z_t - z_y near some points.

    Attributes:
        points: where, in the precision to measure in.
        labels, targets: y and t.
        logits: at the points, in that precision.
        gradients: of the lead, as the network gives them; float64.
        directions: to go along, of length 1; float64.
    """

    points: Images
    labels: Labels
    targets: Labels
    logits: Logits
    gradients: Images
    directions: Images

    def of(self, rows: Tensor) -> "_LinearPredictions":
        """Return the claims about some of the points."""
        kept: dict[str, Any] = {name: tensor[rows] for name, tensor in vars(self).items()}
        return _LinearPredictions(**kept)

    def hold(self, network: Network, longer: int) -> Mask:
        """Return whether a difference ahead, behind or both agrees, so many times as long as the shortest.

        What rounding could hide agrees as well, as nothing is known against it.
        """
        rounding = _ROUNDING * _unit(self.logits) * self.logits.abs().amax(1).double()
        size, pixels = self.gradients.flatten(1).norm(dim=1), math.prod(self.points.shape[1:])
        least = max(_SHORTEST, 4 * torch.finfo(self.points.dtype).eps * math.sqrt(pixels))
        spread = (self.logits.amax(1) - self.logits.amin(1)).double()
        steepness = size.maximum(_FLAT * spread).clamp_min(1e-300)
        length = longer * (_CLEAR * rounding / steepness).clamp(least, _LONGEST * math.sqrt(pixels))
        start = targeted_margin(self.logits, self.labels, self.targets).double()
        promised: list[Tensor] = []
        seen: list[Tensor] = []
        for sign in (1, -1):
            points = self.points + (sign * length.view(-1, 1, 1, 1) * self.directions).to(self.points.dtype)
            end = targeted_margin(logits_of(network, points), self.labels, self.targets).double()
            # As far as it went, which rounding of pixels makes another length.
            promised.append(sign * (self.gradients * (points - self.points).double()).flatten(1).sum(1))
            seen.append(sign * (end - start))
        changes, claimed = (torch.stack([*pair, pair[0] + pair[1]]) for pair in (seen, promised))
        slack = (rounding + _FLAT * spread * length) * torch.tensor([[1], [1], [2]], device=length.device)
        agree: Mask = ((changes >= _SLOPE[0] * claimed - slack) & (changes <= _SLOPE[1] * claimed + slack)).any(0)
        return agree


def _mismatch(
    network: Network, precise: Network | None, images: Images, labels: Labels, streams: ImageStreams
) -> tuple[Mask, Labels]:
    """Return where no difference of any length agrees with the gradient; and the forward passes."""
    shape = images.shape[1:]
    # Away from 0 and 1, as a model may clip its input.
    points = images * 0.98 + 0.01 + _JITTER * (2 * streams.uniform(0, *shape).to(images.dtype) - 1)
    finer = None if precise is None else _finer(precise, points)
    logits = logits_of(network, points) if finer is None else finer
    targets = other_classes_by_logit(logits, labels)[:, 0]
    slopes = loss_gradients_of(network, points, labels, targeted_margin, targets)
    gradients = slopes.gradients.double()
    size = gradients.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    anywhere = streams.signs(1, *shape).double() / math.sqrt(math.prod(shape))
    directions = torch.where(size > 0, gradients / size.clamp_min(1e-300), anywhere)
    claims = _LinearPredictions(points, labels, targets, logits, gradients, directions)
    rows, passes = torch.arange(len(labels), device=labels.device), torch.full_like(labels, 2)
    ways = [(network, claims, rows)]
    if precise is not None and finer is not None:
        spread = slopes.logits.amax(1) - slopes.logits.amin(1)
        same = (finer - slopes.logits).abs().amax(1) <= _SAME_NETWORK * spread
        rough = replace(claims, logits=slopes.logits)
        ways = [(precise, replace(claims, points=points.double()), rows[same]), (network, rough, rows[~same])]
    mismatch = torch.zeros_like(labels, dtype=torch.bool)
    for asked, predictions, left in ways:
        for longer in _LENGTHS:
            if len(left):
                passes[left] += 2
                left = left[~predictions.of(left).hold(asked, longer)]
        mismatch[left] = True
    return mismatch, passes


def _finer(precise: Network, points: Images) -> Logits | None:
    """Return the logits in float64, where the copy can compute them."""
    try:
        logits = logits_of(precise, points.double())
    except (BadInput, RuntimeError, MemoryError, TypeError):  # too little memory, or a device without float64
        return None
    return logits if logits.dtype == torch.float64 else None


def _unit(logits: Logits) -> Tensor:
    """Return half the gap between 1 and the next number, in the precision that each image's logits seem to have."""
    unit = torch.full_like(logits[:, 0], torch.finfo(logits.dtype).eps / 2, dtype=torch.float64)
    for coarse in (torch.float16, torch.bfloat16):
        rounded = (logits.to(coarse).to(logits.dtype) == logits).all(1)
        unit = torch.where(rounded, torch.finfo(coarse).eps / 2, unit)
    return unit


def lands_beside(logits: Logits, labels: Labels, classes_named: int) -> Mask:
    """Return whether an image ended in class y + C/2 of C: where dummy classes lie that were not folded back.

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
