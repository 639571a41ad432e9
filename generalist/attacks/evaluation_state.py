"""An evaluation under way: the verdicts so far, and what speaks against them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from generalist.attacks.autoattack_config import AttackRun
from generalist.attacks.fixed_batches import logits_of, tile_size
from generalist.attacks.losses import Network, margin
from generalist.attacks.members import GRADIENT_FREE
from generalist.attacks.model_adapter import check_logits
from generalist.attacks.model_checks import FlaggedImages, lands_beside
from generalist.attacks.result import FLAGS, AttackProgress, AutoAttackResult, Passes
from generalist.randomness import ImageStreams
from generalist.store import Stored
from generalist.tensors import Images, Labels, Logits, Mask
from generalist.threats import Threat

_TOLERANCE = 1e-6
"""Of eps: how far float64 may find a success outside the ball. Ours; balls keep inside by themselves (`Ball.radius`),
and what is left is the rounding of sums over pixels."""
_SMALL = 2**24
"""Numbers, 64 MiB of float32: so small, all runs on a batch go together, and the last of them share their tiles."""


class EvaluationState:
    """Tensors have one row for each image.

    Args:
        model: the decision, which alone breaks an image.
        images, labels: all of them, checked.
        threat: the ball in which a success counts.
        batch_size: images at a time, rounded up to whole tiles: a broken tile costs as much as a whole one.
        draws: passes that judge a success, for a model that draws random numbers; a majority decides.
        search_draws: passes behind each pass of a search.
    """

    def __init__(
        self,
        model: Network,
        images: Images,
        labels: Labels,
        threat: Threat,
        batch_size: int,
        *,
        draws: int = 1,
        search_draws: int = 1,
    ) -> None:
        self.model, self.images, self.labels, self.threat = model, images, labels, threat
        self.draws, self.search_draws = draws, search_draws
        tile = tile_size(images.device)
        self.batch_size = -(-batch_size // tile) * tile
        count, device = len(images), images.device
        self.clean = torch.zeros(count, dtype=torch.bool, device=device)
        self.robust, self.zero_gradient = self.clean.clone(), self.clean.clone()
        self.fooled_by: list[str | None] = ["clean"] * count
        self.adversarial = images.clone()
        self.margins = torch.zeros(count, device=device)
        self.correct = torch.zeros(count, device=device)
        self.forward = torch.zeros(count, dtype=torch.int64, device=device)
        self.backward = torch.zeros_like(self.forward)
        self.flag_counts = dict.fromkeys(FLAGS, 0)
        self.examined = False
        self.done: list[str] = []
        self.row = 0  # the run under way is through with the images before this one

    def clean_pass(self) -> Logits:
        """Set the clean mistakes aside; returns the logits.

        Raises:
            BadInput: the model's output or the labels don't fit.
        """
        logits = torch.cat([logits_of(self.model, part) for part in self.images.split(self.batch_size)])
        broken, ties = self._judged(logits, self.labels)
        self.margins, self.correct = margin(logits, self.labels).float(), (~broken).float()
        self.clean = ~broken
        self.forward += 1
        if self.draws > 1:
            everything = torch.arange(len(self.images), device=self.images.device)
            for rows in everything.split(self.batch_size):
                self.correct[rows] = self._share(self.images[rows], self.labels[rows])
            self.clean = self.correct > 0.5
            self.forward += self.draws
        self.flag_counts["ties"] += ties
        self._note_unused(logits[~self.clean], self.labels[~self.clean])
        self.robust = self.clean.clone()
        self.fooled_by = [None if correct else "clean" for correct in self.clean.tolist()]
        return logits

    def examine(self, rows: Labels, findings: FlaggedImages) -> None:
        """Keep what a check found on some images."""
        self.forward[rows] += findings.forward
        self.backward[rows] += findings.backward
        for name, images in findings.flag_counts.items():
            self.flag_counts[name] += int(images.sum())

    def attack(
        self,
        member: str,
        runs: Iterable[AttackRun],
        streams: ImageStreams,
        *,
        before: Callable[[str], None],
        after: Callable[[AttackProgress], None],
    ) -> None:
        """Run an attack's runs on all survivors.

        `before` is told the place of each batch; `after` how far the attack is, before its first batch and after each.
        """
        runs = tuple(runs)
        whole, past, begun = sum(run.starts for run in runs), 0, False

        def tell(images: int, share: float) -> None:
            nonlocal begun
            if images or not begun:
                done = (past + share * run.starts) / whole
                after(AttackProgress(member, images, done, int(self.robust.sum()), len(self.images)))
            begun = True

        for run in runs:
            self._run(member, run, streams, before, tell)
            past += run.starts

    def _run(
        self,
        member: str,
        run: AttackRun,
        streams: ImageStreams,
        before: Callable[[str], None],
        tell: Callable[[int, float], None],
    ) -> None:
        """Make one run on all survivors; tell before and after each batch its images, and the share that is done."""
        key = f"{member}: {run.name}"
        if key in self.done:
            return
        numbers = streams.child(member, run.name)
        numbers_at_a_time = self.batch_size * run.starts * self.images[0].numel()
        count = self.batch_size if numbers_at_a_time <= _SMALL else max(self.batch_size // run.starts, 1)
        survivors = self.robust.nonzero().squeeze(1)
        to_do = survivors[survivors >= self.row]
        over = len(survivors) - len(to_do)
        for rows in to_do.split(count):
            if len(rows):
                tell(0, over / len(survivors))
                before(f"{key}, from image {int(rows[0])}")
                target, cost = run.attack_target.counted(self.images[rows])
                broken, adversarial = run.attack(target, self.images[rows], self.labels[rows], numbers[rows])
                self.forward[rows] += cost.forward * self.search_draws
                self.backward[rows] += cost.backward * self.search_draws
                self.zero_gradient[rows] |= cost.zero_gradient
                if bool(broken.any()):
                    self._confirm(member, rows[broken], adversarial[broken])
                self.row = int(rows[-1]) + 1
                over += len(rows)
                tell(len(rows), over / len(survivors))
        self.done, self.row = [*self.done, key], 0

    def present(self, member: str, rows: Labels, points: Images) -> None:
        """Confirm points that were made elsewhere, one for each of some images."""
        for part, own in zip(rows.split(self.batch_size), points.split(self.batch_size), strict=True):
            if len(part):
                self._confirm(member, part, own)

    def _confirm(self, member: str, rows: Labels, points: Images) -> None:
        """Accept a success only after passes of its own, inside ball and pixel range."""
        points = self.threat.settled(points, self.images[rows])
        distance = self.threat.distance(points, self.images[rows])
        allowed = (distance <= self.threat.eps * (1 + _TOLERANCE)) & ((points >= 0) & (points <= 1)).flatten(1).all(1)
        labels = self.labels[rows]
        logits = logits_of(self.model, points)
        broken, ties = self._judged(logits, labels)
        self.flag_counts["ties"] += ties
        self.forward[rows] += 1
        correct = (~broken).float()
        if self.draws > 1:
            correct = self._share(points, labels)
            broken = correct <= 0.5
            self.forward[rows] += self.draws
        else:
            self.flag_counts["unconfirmed successes"] += int((~(allowed & broken)).sum())
        sure = allowed & broken
        # The worst point found counts for the share of correct answers, broken or not.
        worse = allowed & (correct < self.correct[rows])
        self.correct[rows[worse]] = correct[worse]
        broken_rows, labels, logits = rows[sure], labels[sure], logits[sure]
        self.robust[broken_rows] = False
        self.adversarial[broken_rows] = points[sure]
        self.margins[broken_rows] = margin(logits, labels).float()
        self._note_unused(logits, labels)
        if member in GRADIENT_FREE and any(key.partition(":")[0] not in GRADIENT_FREE for key in self.done):
            self.flag_counts["square beats gradients"] += len(broken_rows)
        for row in broken_rows.tolist():
            self.fooled_by[row] = member

    def _note_unused(self, logits: Logits, labels: Labels) -> None:
        """Take note of broken images that ended where a dummy class would lie."""
        if len(labels) and int(self.labels.max()) < logits.shape[1] / 2:
            named = len(self.labels.unique())
            self.flag_counts["unused outputs"] += int(lands_beside(logits, labels, named).sum())

    def _judged(self, logits: Logits, labels: Labels) -> tuple[Mask, int]:
        """Return which are broken, and how many of them by a tie."""
        check_logits(logits, labels)
        margins = margin(logits, labels)
        return ~(margins > 0), int((margins == 0).sum())

    def _share(self, points: Images, labels: Labels) -> torch.Tensor:
        """Return the share of fresh draws in which the label wins: float32 [batch]."""
        wins = torch.zeros(len(points), device=points.device)
        for _ in range(self.draws):
            wins += margin(logits_of(self.model, points), labels) > 0
        return wins / self.draws

    def result(self) -> AutoAttackResult:
        """Return the verdicts."""
        return AutoAttackResult(
            self.robust,
            self.clean,
            self.fooled_by,
            self.adversarial,
            self.margins,
            self.correct,
            {**self.flag_counts, "zero gradients": int((self.zero_gradient & self.robust).sum())},
            Passes(self.forward, self.backward),
        )

    _TENSORS = ("clean", "robust", "zero_gradient", "adversarial", "margins", "correct", "forward", "backward")

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return everything, for `resume`."""
        facts = ("fooled_by", "flag_counts", "examined", "done", "row")
        return {name: getattr(self, name) for name in self._TENSORS}, {name: getattr(self, name) for name in facts}

    def resume(self, stored: Stored) -> None:
        """Go on from a state.

        Raises:
            LookupError, TypeError, ValueError: it is not one of such an evaluation.
        """
        for name in self._TENSORS:
            mine, theirs = getattr(self, name), stored.tensors[name]
            if (mine.shape, mine.dtype) != (theirs.shape, theirs.dtype):
                raise ValueError(f"{name} is {theirs.dtype} {list(theirs.shape)}")
            setattr(self, name, theirs.to(self.images.device))
        facts: Mapping[str, Any] = stored.facts
        self.fooled_by = list(facts["fooled_by"])
        self.flag_counts = {name: int(facts["flag_counts"][name]) for name in FLAGS}
        self.examined, self.done, self.row = bool(facts["examined"]), list(facts["done"]), int(facts["row"])
        if len(self.fooled_by) != len(self.images) or not all(
            isinstance(attack, str | None) for attack in self.fooled_by
        ):
            raise ValueError(f"{len(self.fooled_by)} names of attacks")
