"""Attack runs: the tries of one attack on each surviving image, side by side."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from generalist.attacks.apgd import GIVE_UP_BELOW as HOPELESS_LOSS
from generalist.attacks.apgd import ApgdResult, apgd, apgd_from_outside
from generalist.attacks.attack_target import AttackTarget
from generalist.attacks.autoattack_config import AttackRun, AutoAttackConfig, Claims
from generalist.attacks.fab import GIVE_UP_BEYOND, FabResult, GiveUpSchedule, fab
from generalist.attacks.losses import Loss, other_classes_by_logit, targeted_dlr, targeted_margin
from generalist.attacks.square import square
from generalist.randomness import ImageStreams
from generalist.tensors import Images, Labels, Logits, PerImage
from generalist.threats import Threat

GIVE_UP_EARLY = ((0.25, 2.0, 3), (0.4, 1.5, 2), (0.6, 1.3, 2), (0.8, 1.15, 1))
"""Where quick searches drop FAB's runs, see `fab.GIVE_UP_BEYOND`."""
FINISHED, FINISHED_WITHIN = 2, 1.3
"""How many points found by FAB are attacked once more for each image, if they are within so many eps."""
ODI_STEPS = 7
"""Steps of length eps, as in A3 (Liu et al., CVPR 2022)."""


def apgd_run(setting: AutoAttackConfig, name: str, loss: Loss, restarts: Sequence[int]) -> AttackRun:
    """Run APGD from random starts."""

    def attack(target: AttackTarget, images: Images, labels: Labels, streams: ImageStreams) -> Claims:
        starts = _starts(setting.threat, images, streams, restarts)
        return _run_apgd(setting, target, images, labels, starts, loss, None)

    return AttackRun(f"{name} {restarts[0]}", len(restarts), setting.attack_target, attack)


def targeted_apgd_run(
    setting: AutoAttackConfig,
    name: str,
    loss: Loss,
    ranks: Sequence[int],
    *,
    draws: Sequence[int] | None = None,
    diversified: bool = False,
) -> AttackRun:
    """Run APGD at the classes of some ranks, from random starts, which may be output-diversified.

    The draws of the starts are numbered by the ranks, or as given where a rank comes twice.
    """
    draws = ranks if draws is None else draws

    def attack(target: AttackTarget, images: Images, labels: Labels, streams: ImageStreams) -> Claims:
        targets = _target_classes(target, images, labels, ranks)
        starts = _starts(setting.threat, images, streams, draws)
        if diversified:
            numbers = [streams.child(draw).uniform(1, setting.classes) for draw in draws]
            directions = torch.stack(numbers, dim=1).flatten(0, 1).mul_(2).sub_(1)
            starts = _diversified(target, images, labels, setting.threat, starts, directions)
        return _run_apgd(setting, target, images, labels, starts, loss, targets)

    return AttackRun(f"{name} {ranks[0]}", len(ranks), setting.attack_target, attack)


def fab_run(setting: AutoAttackConfig, name: str, restarts: Sequence[int]) -> AttackRun:
    """Run FAB towards the nearest boundary: restart 0 from the images, others from random points within eps / 2."""
    half = setting.threat.scaled(1 / 2)

    def attack(target: AttackTarget, images: Images, labels: Labels, streams: ImageStreams) -> Claims:
        owners = _image_index(images, len(restarts))
        centres, start = images[owners], None
        if restarts[0] > 0:
            start = half.project(_starts(half, images, streams, restarts), centres)
        return _by_image(
            fab(
                target,
                centres,
                labels[owners],
                setting.threat,
                start=start,
                steps=setting.fab_steps,
                image_index=owners,
            ),
            len(images),
        )

    return AttackRun(f"{name} {restarts[0]}", len(restarts), setting.attack_target, attack)


def targeted_fab_run(
    setting: AutoAttackConfig, name: str, ranks: Sequence[int], give_up: GiveUpSchedule = GIVE_UP_BEYOND
) -> AttackRun:
    """Run FAB towards the boundaries of classes of some ranks, then APGD on the margin from the nearest points found.

    FAB stays near its image and knows no ball; APGD makes more of a point just outside.
    """
    threat, runs = setting.threat, len(ranks)

    def attack(target: AttackTarget, images: Images, labels: Labels, _: ImageStreams) -> Claims:
        targets, owners = _target_classes(target, images, labels, ranks), _image_index(images, runs)
        fab_result = fab(
            target,
            images[owners],
            labels[owners],
            threat,
            targets=targets,
            steps=setting.fab_steps,
            image_index=owners,
            give_up=give_up,
        )
        broken, adversarial = _by_image(fab_result, len(images))
        distance = torch.where(broken[:, None], torch.inf, fab_result.distance.view(-1, runs))
        nearest = distance.topk(min(FINISHED, runs), dim=1, largest=False)
        places = (nearest.indices + torch.arange(len(images), device=images.device)[:, None] * runs).flatten()
        places = places[nearest.values.flatten() <= FINISHED_WITHIN * float(threat.eps)]
        if len(places):
            image_index = owners[places]
            finish = apgd(
                target,
                images[image_index],
                labels[image_index],
                threat,
                start=fab_result.adversarial[places],
                loss=targeted_margin,
                targets=targets[places],
                steps=setting.steps,
                image_index=image_index,
            )
            for row in finish.broken.nonzero().squeeze(1).flip(0).tolist():  # the nearest is written last
                broken[image_index[row]], adversarial[image_index[row]] = True, finish.adversarial[row]
        return broken, adversarial

    return AttackRun(f"{name} {ranks[0]}", runs, setting.attack_target, attack)


def square_run(setting: AutoAttackConfig, name: str) -> AttackRun:
    """Run Square, once."""

    def attack(target: AttackTarget, images: Images, labels: Labels, streams: ImageStreams) -> Claims:
        run = square(target, images, labels, setting.threat, streams, queries=setting.queries)
        return run.broken, run.adversarial

    return AttackRun(name, 1, setting.attack_target, attack)


def _starts(threat: Threat, images: Images, streams: ImageStreams, draws: Sequence[int]) -> Tensor:
    """Return as many starts for each image, in turn; not projected, as APGD does that for the radius it begins at."""
    ball = threat.ball(images)
    return torch.stack([images + ball.boundary_offset(streams.child(draw)) for draw in draws], dim=1).flatten(0, 1)


def _diversified(
    target: AttackTarget, images: Images, labels: Labels, threat: Threat, starts: Tensor, directions: Tensor
) -> Tensor:
    """Return where some steps of length eps lead that raise directions · logits (Tashiro et al., NeurIPS 2020: ODI)."""
    owners = _image_index(images, len(starts) // len(images))
    ball = threat.ball(images[owners])
    points = ball.project_(starts.clone())
    for _ in range(ODI_STEPS):
        slopes = target.slopes(points, labels[owners], _along, directions, owners)
        ball.project_(points.add_(ball.steepest_ascent(slopes.gradients), alpha=float(threat.eps)))
    return points


def _along(logits: Float[Tensor, "batch outputs"], _: Labels, directions: Logits) -> PerImage:
    return (logits[:, : directions.shape[1]] * directions).sum(1)  # a view may have more than the classes


def _target_classes(target: AttackTarget, images: Images, labels: Labels, ranks: Sequence[int]) -> Tensor:
    return other_classes_by_logit(target.logits(images, _image_index(images, 1)), labels)[:, list(ranks)].flatten()


def _run_apgd(
    setting: AutoAttackConfig,
    target: AttackTarget,
    images: Images,
    labels: Labels,
    starts: Tensor,
    loss: Loss,
    targets: Tensor | None,
) -> Claims:
    """Run APGD from as many starts for each image."""
    owners = _image_index(images, len(starts) // len(images))
    hopeless = HOPELESS_LOSS if loss is targeted_dlr and setting.threat.measured else ()
    on_radius = partial(apgd, give_up=hopeless)
    attack = apgd_from_outside if setting.threat.geometry.sparse else on_radius
    run = attack(
        target,
        images[owners],
        labels[owners],
        setting.threat,
        start=starts,
        loss=loss,
        targets=targets,
        steps=setting.steps,
        stop_when_broken=not setting.keep_going_when_broken,
        image_index=owners,
    )
    if setting.keep_going_when_broken:
        losses = run.best_loss.view(len(images), -1)
        highest = losses == losses.amax(1, keepdim=True)
        run = replace(run, broken=highest.flatten(), adversarial=run.best)
    return _by_image(run, len(images))


def _image_index(images: Images, runs: int) -> Tensor:
    """Return which image each run attacks."""
    return torch.arange(len(images), device=images.device).repeat_interleave(runs)


def _by_image(run: ApgdResult | FabResult, count: int) -> Claims:
    """Return the first of an image's runs that broke it."""
    broken = run.broken.view(count, -1)
    runs = broken.shape[1]
    first = (broken.long() * torch.arange(runs, 0, -1, device=broken.device)).argmax(1)
    return broken.any(1), run.adversarial[torch.arange(count, device=broken.device) * runs + first]
