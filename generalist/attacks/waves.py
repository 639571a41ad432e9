"""Waves: the runs of one attack on each surviving image, side by side."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from generalist.attacks.apgd import HOPELESS as HOPELESS_LOSS
from generalist.attacks.apgd import Ascent, apgd, apgd_from_outside
from generalist.attacks.diversified import STEPS as ODI_STEPS
from generalist.attacks.diversified import odi_start
from generalist.attacks.fab import HOPELESS, Nearest, Sieve, fab
from generalist.attacks.losses import Loss, ranked, targeted_dlr, targeted_margin
from generalist.attacks.setting import Attempt, Setting, Wave
from generalist.attacks.square import square
from generalist.attacks.tiles import logits_of
from generalist.randomness import ImageStreams
from generalist.tensors import Images, Labels
from generalist.threats import Threat

SOON = ((0.25, 2.0, 3), (0.4, 1.5, 2), (0.6, 1.3, 2), (0.8, 1.15, 1))
"""Where quick searches drop FAB's runs, see `fab.HOPELESS`."""
FINISHED, FINISHED_WITHIN = 2, 1.3
"""How many points found by FAB are attacked once more for each image, if they are within so many eps."""


def ascent(setting: Setting, name: str, loss: Loss, restarts: Sequence[int]) -> Wave:
    """Run APGD from random starts."""

    def attack(images: Images, labels: Labels, streams: ImageStreams) -> Attempt:
        starts = _starts(setting.threat, images, streams, restarts)
        return _ascend(setting, images, labels, starts, loss, None, len(restarts))

    return Wave(f"{name} {restarts[0]}", len(restarts), attack)


def aimed_ascent(
    setting: Setting,
    name: str,
    loss: Loss,
    ranks: Sequence[int],
    *,
    draws: Sequence[int] | None = None,
    diversified: bool = False,
) -> Wave:
    """Run APGD at the classes of some ranks, from random starts, which may be output-diversified.

    The draws of the starts are numbered by the ranks, or as given where a rank comes twice.
    """
    draws = ranks if draws is None else draws

    def attack(images: Images, labels: Labels, streams: ImageStreams) -> Attempt:
        targets = _aims(setting, images, labels, ranks)
        starts = _starts(setting.threat, images, streams, draws)
        if diversified:
            many, their = images.repeat_interleave(len(ranks), 0), labels.repeat_interleave(len(ranks), 0)
            numbers = [streams.child(draw).uniform(1, setting.classes) for draw in draws]
            direction = torch.stack(numbers, dim=1).flatten(0, 1).mul_(2).sub_(1)
            starts = odi_start(setting.victim, many, their, setting.threat, starts, direction)
        attempt = _ascend(setting, images, labels, starts, loss, targets, len(ranks), asked=1)
        extra = ODI_STEPS * len(ranks) if diversified else 0
        return replace(attempt, forward=attempt.forward + extra, backward=attempt.backward + extra)

    return Wave(f"{name} {ranks[0]}", len(ranks), attack)


def approach(setting: Setting, name: str, restarts: Sequence[int]) -> Wave:
    """Run FAB towards the nearest boundary: restart 0 from the images, others from random points within eps / 2."""

    def attack(images: Images, labels: Labels, streams: ImageStreams) -> Attempt:
        starts = None
        if restarts[0] > 0:
            half = Threat(setting.threat.norm, float(setting.threat.eps) / 2)
            starts = half.project(
                _starts(half, images, streams, restarts), images.repeat_interleave(len(restarts), dim=0)
            )
        runs = len(restarts)
        return _by_image(_approach(setting, images, labels, runs, starts=starts), runs, asked=0)

    return Wave(f"{name} {restarts[0]}", len(restarts), attack)


def aimed_approach(setting: Setting, name: str, ranks: Sequence[int], hopeless: Sieve = HOPELESS) -> Wave:
    """Run FAB towards the boundaries of classes of some ranks, then APGD on the margin from the nearest points found.

    FAB stays near its image and knows no ball; APGD makes more of a point just outside.
    """

    def attack(images: Images, labels: Labels, _: ImageStreams) -> Attempt:
        runs = len(ranks)
        targets = _aims(setting, images, labels, ranks)
        owners = _owners(images, runs)
        found = _approach(setting, images, labels, runs, targets=targets, hopeless=hopeless)
        attempt = _by_image(found, runs, asked=1)
        distance = torch.where(attempt.broken[:, None], torch.inf, found.distance.view(-1, runs))
        nearest = distance.topk(min(FINISHED, runs), dim=1, largest=False)
        places = (nearest.indices + torch.arange(len(images), device=images.device)[:, None] * runs).flatten()
        places = places[nearest.values.flatten() <= FINISHED_WITHIN * float(setting.threat.eps)]
        if not len(places):
            return attempt
        own = owners[places]
        finish = apgd(
            setting.victim,
            images[own],
            labels[own],
            setting.threat,
            start=found.adversarial[places],
            loss=targeted_margin,
            targets=targets[places],
            steps=setting.steps,
            owners=own,
        )
        forward, backward = attempt.forward.clone(), attempt.backward.clone()
        forward.index_add_(0, own, finish.forward)
        backward.index_add_(0, own, finish.backward)
        broken, adversarial = attempt.broken.clone(), attempt.adversarial.clone()
        hit = finish.broken.nonzero().squeeze(1).flip(0)  # the nearest is written last
        for row in hit.tolist():
            broken[own[row]], adversarial[own[row]] = True, finish.adversarial[row]
        return Attempt(broken, adversarial, forward, backward, attempt.blind)

    return Wave(f"{name} {ranks[0]}", len(ranks), attack)


def by_queries(setting: Setting, name: str) -> Wave:
    """Run Square, once."""

    def attack(images: Images, labels: Labels, streams: ImageStreams) -> Attempt:
        run = square(setting.victim, images, labels, setting.threat, streams, queries=setting.queries)
        nothing = torch.zeros_like(run.passes)
        return Attempt(run.broken, run.adversarial, run.passes, nothing, torch.zeros_like(run.broken))

    return Wave(name, 1, attack)


def _starts(threat: Threat, images: Images, streams: ImageStreams, draws: Sequence[int]) -> Tensor:
    """Return as many starts for each image, in turn; not projected, as APGD does that for the radius it begins at."""
    ball = threat.ball(images)
    return torch.stack([images + ball.boundary_offset(streams.child(draw)) for draw in draws], dim=1).flatten(0, 1)


def _aims(setting: Setting, images: Images, labels: Labels, ranks: Sequence[int]) -> Tensor:
    order = ranked(logits_of(setting.victim.decision, images), labels)
    return order[:, list(ranks)].flatten()


def _ascend(
    setting: Setting,
    images: Images,
    labels: Labels,
    starts: Tensor,
    loss: Loss,
    targets: Tensor | None,
    runs: int,
    *,
    asked: int = 0,
) -> Attempt:
    """Run APGD, several times for each image."""
    owners = _owners(images, runs)
    on_radius = partial(apgd, hopeless=HOPELESS_LOSS if loss is targeted_dlr else ())
    attack = apgd_from_outside if setting.threat.geometry.sparse else on_radius
    run = attack(
        setting.victim,
        images[owners],
        labels[owners],
        setting.threat,
        start=starts,
        loss=loss,
        targets=targets,
        steps=setting.steps,
        stop_when_broken=not setting.keep_going,
        owners=owners,
    )
    if setting.keep_going:
        losses = run.best_loss.view(-1, runs)
        highest = losses == losses.amax(1, keepdim=True)
        run = replace(run, broken=highest.flatten(), adversarial=run.best)
    return _by_image(run, runs, asked)


def _approach(
    setting: Setting,
    images: Images,
    labels: Labels,
    runs: int,
    *,
    starts: Tensor | None = None,
    targets: Tensor | None = None,
    hopeless: Sieve = HOPELESS,
) -> Nearest:
    """Run FAB, several times for each image."""
    owners = _owners(images, runs)
    return fab(
        setting.victim,
        images[owners],
        labels[owners],
        setting.threat,
        targets=targets,
        start=starts,
        steps=setting.fab_steps,
        owners=owners,
        hopeless=hopeless,
    )


def _owners(images: Images, runs: int) -> Tensor:
    """Return which image each run attacks."""
    return torch.arange(len(images), device=images.device).repeat_interleave(runs)


def _by_image(run: Ascent | Nearest, runs: int, asked: int) -> Attempt:
    """Return the first of an image's runs that broke it, and the passes of all of them."""
    broken = run.broken.view(-1, runs)
    first = (broken.long() * torch.arange(runs, 0, -1, device=broken.device)).argmax(1)
    rows = torch.arange(len(broken), device=broken.device) * runs + first
    return Attempt(
        broken.any(1),
        run.adversarial[rows],
        run.forward.view(-1, runs).sum(1) + asked,
        run.backward.view(-1, runs).sum(1),
        run.blind.view(-1, runs).any(1),
    )
