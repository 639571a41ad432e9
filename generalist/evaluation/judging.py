"""What each column of an evaluation makes of some images."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from generalist import engine
from generalist.attacks import AttackProgress, AutoAttackResult, autoattack, misclassified
from generalist.attacks.fixed_batches import logits_of
from generalist.config import EvaluationOptions
from generalist.data import Split
from generalist.evaluation.accuracy import (
    TILE,
    Flags,
    Float32,
    Network,
    attacked,
    cascade_settings,
    decision,
    device,
    tiles,
    whole,
)
from generalist.evaluation.columns import STRONGER, Column
from generalist.models import Classifier
from generalist.store import StateLost, set_aside
from generalist.tensors import Images, Logits
from generalist.threats import threat_from

Tell = Callable[[AttackProgress], None]


@dataclass(frozen=True)
class Judged:
    """What one column makes of n images.

    Attributes:
        robust: bool [n], right as they are and after the attack.
        ends: float32 [n, C, H, W], where the attack ended.
        arrays: more facts about each image, by name.
        flag_counts: how many images give reason to each flag, where that was looked for.
    """

    robust: Flags
    ends: Float32
    arrays: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    flag_counts: Mapping[str, int] | None = None


class Judge:
    """Attacks some images of a split by one column after the other.

    Args:
        model: the learner.
        split: all images.
        rows: which of them; they begin at a whole tile.
        options: threats and attacks.
        states: a folder for the states of the cascades, so that a killed evaluation goes on.
    """

    def __init__(
        self, model: Classifier, split: Split, rows: range, options: EvaluationOptions, states: Path | None
    ) -> None:
        self._model, self._rows, self._options, self._states = model, rows, options, states
        self._network, self._on = decision(model), device(model)
        part = slice(rows.start, rows.stop)
        self.split = Split(np.asarray(split.images)[part], np.asarray(split.labels)[part])
        self.predictions = self._predicted()
        self.right = self.predictions == self.split.labels
        self._before: dict[Column, Judged] = {}

    def __call__(self, column: Column, tell: Tell | None) -> Judged:
        """Return what a column makes of the images; `tell` is told how far each attack is."""
        ways = {"pgd": self._pgd, "cascade": self._cascade, "strongest": self._strongest, "grid": self._grid}
        judged = ways[column.way](column, tell)
        self._before[replace(column, attack="")] = judged
        return judged

    def _pgd(self, column: Column, tell: Tell | None) -> Judged:
        options = self._options
        _, robust, ends = attacked(
            self._model,
            self.split,
            column.threat,
            options.pgd,
            seed=options.seed,
            first=self._rows.start,
            through=self._function(column),
            watch=tell,
        )
        return Judged(robust, ends)

    def _cascade(self, column: Column, tell: Tell | None) -> Judged:
        result = self._autoattacked(column, self.split, None, tell)
        ends = result.adversarial.cpu().numpy()
        # A mistake is not robust, also where the last bit of a logit decided differently in a batch of another size.
        robust = self._robust(column, result, self.split) & self.right
        if not column.adaptive:
            return Judged(robust, ends)
        fooled_by = ["" if held else attack or "clean" for held, attack in zip(robust, result.fooled_by, strict=True)]
        arrays = {"margin": result.margins.cpu().numpy(), "fooled_by": np.array(fooled_by, dtype=np.str_)}
        return Judged(robust, ends, arrays, result.flag_counts)

    def _strongest(self, column: Column, tell: Tell | None) -> Judged:
        """Attack what the cascade left."""
        before = self._before[replace(column, attack="", way="cascade")]
        left, robust, ends = before.robust, before.robust.copy(), before.ends.copy()
        survivors = Split(self.split.images[left], self.split.labels[left])
        result = self._autoattacked(column, survivors, STRONGER, tell)
        robust[left], ends[left] = self._robust(column, result, survivors), result.adversarial.cpu().numpy()
        return Judged(robust, ends)

    def _grid(self, column: Column, tell: Tell | None) -> Judged:
        """Ask for the worst of a grid of choices, the same for all images, of those that still stand."""
        space = threat_from(column.threat).space
        assert space is not None  # as columns have it
        changes, (images, labels) = space.changes(), whole(self.split, self._on)
        standing, ends = torch.from_numpy(self.right.copy()).to(self._on), images.clone()
        for index, change in enumerate(changes):
            with engine.arithmetic(self._on):
                for rows in standing.nonzero().squeeze(1).split(TILE) if bool(standing.any()) else ():
                    points = change(images[rows])
                    broken = misclassified(logits_of(self._network, points), labels[rows])
                    standing[rows[broken]], ends[rows[broken]] = False, points[broken]
            if tell is not None:
                last = index + 1 == len(changes)
                count = int(standing.sum())
                tell(AttackProgress(column.attack, len(labels) * last, (index + 1) / len(changes), count, len(labels)))
        return Judged(standing.cpu().numpy(), ends.cpu().numpy())

    def _robust(self, column: Column, result: AutoAttackResult, split: Split) -> Flags:
        """Return which images stand, by the decision: one that isn't adaptive knows when its view is broken."""
        if column.adaptive:
            return result.robust.cpu().numpy()
        labels = torch.from_numpy(np.array(split.labels)).to(self._on)
        parts = zip(result.adversarial.split(TILE), labels.split(TILE), strict=True)
        with engine.arithmetic(self._on):
            broken = [
                misclassified(logits_of(self._network, points), targets).cpu().numpy()
                for points, targets in parts
                if len(points)
            ]
        return ~np.concatenate([np.zeros(0, dtype=np.bool_), *broken])

    def _predicted(self) -> NDArray[np.int64]:
        with engine.arithmetic(self._on):
            predictions = [
                logits_of(self._network, images).argmax(1).cpu().numpy() for images, _ in tiles(self.split, self._on)
            ]
        return np.concatenate([np.zeros(0, dtype=np.int64), *predictions])

    def _function(self, column: Column) -> Network:
        """Return what the attack of a column sees."""
        views = self._model.views() if column.adaptive else self._model.nonadaptive()
        return views[column.view]

    def _autoattacked(
        self, column: Column, split: Split, attacks: tuple[str, ...] | None, tell: Tell | None
    ) -> AutoAttackResult:
        threat, options = threat_from(column.threat), self._options
        images, labels = whole(split, self._on)
        name = hashlib.sha256(repr((attacks, str(threat), column.name, self._rows)).encode()).hexdigest()[:16]
        state = None if self._states is None else self._states / f"{name}.safetensors"

        def verdicts() -> AutoAttackResult:
            return autoattack(
                self._model if column.adaptive else _Seen(self._model, self._function(column)),
                images,
                labels,
                threat,
                **cascade_settings(options),
                attacks=attacks,
                state=state,
                watch=tell,
            )

        try:
            return verdicts()
        except StateLost:
            assert state is not None  # which was damaged, or that of another evaluation
            set_aside(state)
            return verdicts()


class _Seen(nn.Module):
    """A learner by one function alone, which an attack takes for the decision."""

    def __init__(self, model: Classifier, function: Network) -> None:
        super().__init__()
        self.model, self.function = model, function

    def forward(self, images: Images) -> Logits:
        return self.function(images)
