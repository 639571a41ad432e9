"""The attacks on some of the images of a split: a whole evaluation, or a shard of one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from generalist.attacks import AttackProgress
from generalist.config import EvaluationOptions
from generalist.data import Split
from generalist.evaluation.accuracy import TILE, Float32
from generalist.evaluation.columns import columns
from generalist.evaluation.judging import Judge
from generalist.models import DECISION, Classifier
from generalist.tensors import to_unit
from generalist.threats import threat_from

Watch = Callable[[str, AttackProgress], None]
"""Told a threat, and how far an attack in it is."""


@dataclass(frozen=True)
class Shard:
    """What became of each image.

    Attributes:
        arrays: per-image arrays, `label`, `prediction`, and under `THREAT/` their verdicts by column, and more.
        columns: names of the columns under each threat.
        flag_counts: by threat, how many images give reason to each flag.
        adversarial: float32 [n, C, H, W], under the first threat: where the last column that broke the image ended;
            where none did, where the first one ended; a mistake is left as it is.
    """

    arrays: dict[str, NDArray[np.generic]]
    columns: dict[str, tuple[str, ...]]
    flag_counts: dict[str, Mapping[str, int]]
    adversarial: Float32


def shard_ranges(images: int, shards: int) -> list[range]:
    """Return ranges of images of about the same size that begin at whole tiles; fewer where there are too few tiles."""
    tiles_ = -(-images // TILE)
    count = max(min(shards, tiles_), 1)
    edges = [min(TILE * round(index * tiles_ / count), images) for index in range(count + 1)]
    return [range(start, stop) for start, stop in pairwise(edges)]


def attack_shard(
    model: Classifier,
    split: Split,
    rows: range,
    *,
    options: EvaluationOptions,
    states: Path | None = None,
    watch: Watch | None = None,
) -> Shard:
    """Clean predictions, and the verdicts of every column, on some images.

    Args:
        model: the learner.
        split: all images.
        rows: which of them; they begin at a whole tile.
        options: threats and attacks.
        states: a folder for the states of the cascades, so that a killed evaluation goes on.
        watch: told the threat, and how far each attack is.
    """
    judge, asked = Judge(model, split, rows, options, states), columns(options, model)
    arrays: dict[str, NDArray[np.generic]] = {"label": judge.split.labels, "prediction": judge.predictions}
    flag_counts: dict[str, Mapping[str, int]] = {}
    adversarial, right = to_unit(torch.from_numpy(np.array(judge.split.images))).numpy(), judge.right
    for column in asked:
        threat = str(threat_from(column.threat))
        through = threat if column.view == DECISION else f"{threat} through {column.name.rpartition('/')[0]}"
        judged = judge(column, None if watch is None else partial(watch, through))
        arrays |= {f"{threat}/{column.name}": judged.robust}
        arrays |= {f"{threat}/{name}": array for name, array in judged.arrays.items()}
        if judged.flag_counts is not None:
            flag_counts[threat] = judged.flag_counts
        if column.threat == asked[0].threat:
            moved = right if column == asked[0] else right & ~judged.robust
            adversarial = np.where(moved[:, None, None, None], judged.ends, adversarial)
    names: dict[str, tuple[str, ...]] = {}
    for column in asked:
        threat = str(threat_from(column.threat))
        names[threat] = (*names.get(threat, ()), column.name)
    return Shard(arrays, names, flag_counts, adversarial)


def concatenate(shards: Sequence[Shard]) -> Shard:
    """Return all shards of a split, in its order, as one."""
    names, threats = shards[0].arrays, shards[0].flag_counts
    return Shard(
        {name: np.concatenate([shard.arrays[name] for shard in shards]) for name in names},
        shards[0].columns,
        {
            threat: {name: sum(shard.flag_counts[threat][name] for shard in shards) for name in threats[threat]}
            for threat in threats
        },
        np.concatenate([shard.adversarial for shard in shards]),
    )
