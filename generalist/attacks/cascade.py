"""AutoAttack (Croce and Hein, ICML 2020): several attacks in turn, each on the images that survived the ones before."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from generalist.attacks.apgd import apgd
from generalist.attacks.checks import check_images, check_logits
from generalist.attacks.losses import Network, fooled
from generalist.attacks.square import square
from generalist.attacks.tiles import logits_of, tile_size
from generalist.config.section import nearest
from generalist.errors import BadInput
from generalist.randomness import ImageStreams
from generalist.tensors import Images, Labels, Mask
from generalist.threats import Threat

VERSIONS: dict[str, tuple[str, ...]] = {"apgd-ce+square": ("apgd-ce", "square")}
"""The attacks of each version, in order."""

_TOLERANCE = 1e-6  # of eps: how far float64 may find a success outside the ball
_FEW = 3  # images: no share of so few images raises a flag
_SQUARE_MAY = 0.02  # of n: by its margin loss Square finds some that APGD on the cross-entropy alone misses,
# without anything being hidden. The original allows 0.2 % beside targeted attacks and FAB, which find those first.


@dataclass(frozen=True)
class Passes:
    """Passes that each image needed up to its verdict, int64 [n]: the clean one, the attacks', the confirming ones.

    Copies that fill a tile, and images that wait for their tile, are not counted.
    """

    forward: Labels
    backward: Labels


@dataclass(frozen=True)
class Cascade:
    """The verdict on each of n images.

    Attributes:
        robust: classified correctly, and no attack changed that.
        clean: classified correctly without attack.
        fooled_by: the attack that broke the image, `clean` where none was needed, None where none could.
        adversarial: float32, the confirmed success, or the image itself where there is none.
        flags: what makes the verdicts doubtful; empty is good.
        passes: what it cost.
    """

    robust: Mask
    clean: Mask
    fooled_by: list[str | None]
    adversarial: Images
    flags: tuple[str, ...]
    passes: Passes


@dataclass(frozen=True)
class Attempt:
    """What one attack did to each image of a batch: claims, points, passes, and where its gradient was zero."""

    broken: Mask
    adversarial: Images
    forward: Labels
    backward: Labels
    blind: Mask


Member = Callable[[Network, Images, Labels, Threat, ImageStreams], Attempt]


def autoattack(
    model: nn.Module | Network,
    images: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    version: str = "apgd-ce+square",
    seed: int = 0,
    batch_size: int = 256,
    attacks: Sequence[str] | None = None,
    square_queries: int = 5000,
) -> Cascade:
    """Per-image verdicts by a cascade of attacks.

    A verdict depends on the image, its label, the model, the threat and the seed: not on batch size, order
    or neighbours. Every success is confirmed by another forward pass in float32, inside ball (float64) and
    pixel range; a tie of the label with another class counts as broken. A module is attacked in eval mode and
    then put back; modes, parameters, their `.grad` and torch's global generator are left as found.

    Args:
        model: from float32 images in [0, 1] to logits [n, classes], each image on its own and always the same.
        images: float32 [n, channels, height, width] in [0, 1], on the model's device; n may be 0.
        labels: int64 [n].
        threat: such as `Threat("linf", 8 / 255)`.
        version: which attacks, see `VERSIONS`.
        seed: of all random numbers.
        batch_size: images attacked at a time, rounded up to whole tiles (64 images on a CPU): a cap on memory.
        attacks: single attacks by name in place of a version.
        square_queries: forward passes of Square per image.

    Raises:
        BadInput: an unknown name; images or labels of a wrong type, shape or range; a model that gives no
            logits for two classes at least, or something that is not a number.
    """
    names = _names(version, attacks)
    check_images(images, labels)
    if batch_size < 1 or square_queries < 1:
        raise BadInput(f"batch_size ({batch_size}) and square_queries ({square_queries}) must be 1 at least")
    members: Mapping[str, Member] = {"apgd-ce": _apgd_ce, "square": partial(_square, queries=square_queries)}
    with _evaluating(model), torch.inference_mode(mode=False):
        course = _Course(model, images.clone(), labels.clone(), threat, batch_size)
        if len(images):
            course.clean_pass()
            streams = ImageStreams.of(images, labels, seed=seed)
            for name in names:
                course.run(name, members[name], streams.child(name, 0))
    return course.result()


def _apgd_ce(network: Network, images: Images, labels: Labels, threat: Threat, streams: ImageStreams) -> Attempt:
    run = apgd(network, images, labels, threat, start=threat.boundary_start(images, streams))
    return Attempt(run.broken, run.adversarial, run.passes, run.passes, run.blind)


def _square(
    network: Network, images: Images, labels: Labels, threat: Threat, streams: ImageStreams, *, queries: int
) -> Attempt:
    run = square(network, images, labels, threat, streams, queries=queries)
    return Attempt(run.broken, run.adversarial, run.passes, torch.zeros_like(run.passes), torch.zeros_like(run.broken))


class _Course:
    """A cascade under way: verdicts so far, and what speaks against them."""

    def __init__(self, model: Network, images: Images, labels: Labels, threat: Threat, batch_size: int) -> None:
        self.model, self.images, self.labels, self.threat = model, images, labels, threat
        tile = tile_size(images.device)
        self.batch_size = -(-batch_size // tile) * tile  # a broken tile costs as much as a whole one
        self.clean = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        self.robust = self.clean.clone()
        self.fooled_by: list[str | None] = ["clean"] * len(images)
        self.adversarial = images.clone()
        self.forward = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        self.backward = torch.zeros_like(self.forward)
        self.broken_by: dict[str, int] = {}
        self.ties = self.blind = self.unconfirmed = 0

    def clean_pass(self) -> None:
        """Set the clean mistakes aside.

        Raises:
            BadInput: the model's output or the labels don't fit.
        """
        everything = torch.arange(len(self.images), device=self.images.device)
        for rows in everything.split(self.batch_size):
            self.clean[rows] = ~self._fooled(self.images[rows], self.labels[rows])
        self.forward += 1
        self.robust = self.clean.clone()
        self.fooled_by = [None if correct else "clean" for correct in self.clean.tolist()]

    def run(self, name: str, member: Member, streams: ImageStreams) -> None:
        """One attack on all survivors."""
        self.broken_by[name] = 0
        for rows in self.robust.nonzero().squeeze(1).split(self.batch_size):
            if not len(rows):
                break
            attempt = member(self.model, self.images[rows], self.labels[rows], self.threat, streams[rows])
            self.forward[rows] += attempt.forward
            self.backward[rows] += attempt.backward
            self.blind += int(attempt.blind.sum())
            if bool(attempt.broken.any()):
                self._confirm(name, rows[attempt.broken], attempt.adversarial[attempt.broken])

    def _confirm(self, name: str, rows: Labels, points: Images) -> None:
        """Believe a success only after a pass of its own, inside ball and pixel range."""
        distance = self.threat.distance(points, self.images[rows])
        allowed = (distance <= self.threat.eps * (1 + _TOLERANCE)) & ((points >= 0) & (points <= 1)).flatten(1).all(1)
        sure = allowed & self._fooled(points, self.labels[rows])
        self.forward[rows] += 1
        self.unconfirmed += int((~sure).sum())
        self.broken_by[name] += int(sure.sum())
        self.robust[rows[sure]] = False
        self.adversarial[rows[sure]] = points[sure]
        for row in rows[sure].tolist():
            self.fooled_by[row] = name

    def _fooled(self, points: Images, labels: Labels) -> Mask:
        """The verdict on points; ties are counted."""
        logits = logits_of(self.model, points)
        check_logits(logits, labels)
        broken = fooled(logits, labels)
        highest = logits.amax(1)
        self.ties += int((broken & (logits.gather(1, labels[:, None]).squeeze(1) == highest)).sum())
        return broken

    def result(self) -> Cascade:
        return Cascade(
            robust=self.robust,
            clean=self.clean,
            fooled_by=self.fooled_by,
            adversarial=self.adversarial,
            flags=tuple(self._flags()),
            passes=Passes(self.forward, self.backward),
        )

    def _flags(self) -> Iterator[str]:
        n = len(self.images)
        gradients_first = next(iter(self.broken_by), "square") != "square"
        if gradients_first and self.broken_by.get("square", 0) > max(_FEW, _SQUARE_MAY * n):
            yield "square beats gradients"
        for flag, count in (
            ("zero gradients", self.blind),
            ("ties", self.ties),
            ("unconfirmed successes", self.unconfirmed),
        ):
            if count > max(_FEW, 0.01 * n):
                yield flag


@contextmanager
def _evaluating(model: nn.Module | Network) -> Iterator[None]:
    """Eval mode for a module, each part put back afterwards; other callables are taken as they are."""
    training = [part for part in model.modules() if part.training] if isinstance(model, nn.Module) else []
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _names(version: str, attacks: Sequence[str] | None) -> tuple[str, ...]:
    if version not in VERSIONS:
        raise BadInput(f"there is no version '{version}' of the cascade; {nearest(version, list(VERSIONS))}")
    if attacks is None:
        return VERSIONS[version]
    known = sorted({name for names in VERSIONS.values() for name in names})
    for name in attacks:
        if name not in known:
            raise BadInput(f"there is no attack '{name}'; {nearest(name, known)}")
    if not attacks:
        raise BadInput(f"'attacks' is empty; name one at least of: {', '.join(known)}")
    return tuple(dict.fromkeys(attacks))
