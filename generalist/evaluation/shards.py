"""The attacks on some of the images of a split: a whole evaluation, or a shard of one."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from generalist import engine
from generalist.attacks import Cascade, Standing, autoattack
from generalist.attacks.tiles import logits_of
from generalist.config import EvaluationOptions
from generalist.data import Split
from generalist.evaluation.measuring import TILE, Float32, attacked, decision, device, tiles, whole
from generalist.models import Classifier
from generalist.records import STRONGER
from generalist.store import Lost, set_aside
from generalist.threats import Threat, threat_from

Watch = Callable[[str, Standing], None]
"""Told a threat, and how far an attack in it is."""


@dataclass(frozen=True)
class Shard:
    """What became of each image.

    Attributes:
        arrays: per-image arrays, `label`, `prediction`, and under `THREAT/` their verdicts.
        doubts: by threat, how many images give reason to each flag.
        adversarial: float32 [n, C, H, W], under the first threat: what the cascade found, and where it found
            nothing, where PGD ended.
    """

    arrays: dict[str, NDArray[np.generic]]
    doubts: dict[str, Mapping[str, int]]
    adversarial: Float32


def cuts(images: int, shards: int) -> list[range]:
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
    """Clean predictions, PGD and the cascade on some images.

    Args:
        model: the learner.
        split: all images.
        rows: which of them; they begin at a whole tile.
        options: threats and attacks.
        states: a folder for the states of the cascades, so that a killed evaluation goes on.
        watch: told the threat, and how far each attack is.
    """
    part = Split(np.asarray(split.images)[rows.start : rows.stop], np.asarray(split.labels)[rows.start : rows.stop])
    network, on = decision(model), device(model)
    with engine.arithmetic(on):
        predictions = [logits_of(network, images).argmax(1).cpu().numpy() for images, _ in tiles(part, on)]
    arrays: dict[str, NDArray[np.generic]] = {
        "label": part.labels,
        "prediction": np.concatenate([np.zeros(0, dtype=np.int64), *predictions]),
    }
    right = arrays["prediction"] == part.labels
    doubts: dict[str, Mapping[str, int]] = {}
    adversarial: list[Float32] = []
    for written in options.threats:
        key = str(threat_from(written))
        tell = None if watch is None else partial(watch, key)
        _, pgd, ends = attacked(model, part, written, options.pgd, seed=options.seed, first=rows.start, watch=tell)
        found = _cascade(model, part, threat_from(written), options, None, states, rows, tell)
        # A mistake is not robust, also where the last bit of a logit decided differently in a batch of another size.
        robust = found.robust.cpu().numpy() & right
        arrays |= {f"{key}/pgd": pgd, f"{key}/cascade": robust, f"{key}/margin": found.margins.cpu().numpy()}
        fooled_by = ["" if held else attack or "clean" for held, attack in zip(robust, found.fooled_by, strict=True)]
        arrays[f"{key}/fooled_by"] = np.array(fooled_by, dtype=np.str_)
        if options.stronger:
            survivors = Split(part.images[robust], part.labels[robust])
            held = robust.copy()
            again = _cascade(model, survivors, threat_from(written), options, STRONGER, states, rows, tell)
            held[robust] = again.robust.cpu().numpy()
            arrays[f"{key}/strongest"] = held
        doubts[key] = found.doubts
        adversarial.append(np.where(robust[:, None, None, None], ends, found.adversarial.cpu().numpy()))
    return Shard(arrays, doubts, adversarial[0])


def joined(shards: Sequence[Shard]) -> Shard:
    """Return all shards of a split, in its order, as one."""
    names, threats = shards[0].arrays, shards[0].doubts
    return Shard(
        {name: np.concatenate([shard.arrays[name] for shard in shards]) for name in names},
        {
            threat: {name: sum(shard.doubts[threat][name] for shard in shards) for name in threats[threat]}
            for threat in threats
        },
        np.concatenate([shard.adversarial for shard in shards]),
    )


def _cascade(
    model: Classifier,
    split: Split,
    threat: Threat,
    options: EvaluationOptions,
    attacks: tuple[str, ...] | None,
    states: Path | None,
    rows: range,
    watch: Callable[[Standing], None] | None,
) -> Cascade:
    images, labels = whole(split, device(model))
    name = hashlib.sha256(repr((attacks, str(threat), rows)).encode()).hexdigest()[:16]
    state = None if states is None else states / f"{name}.safetensors"

    def found() -> Cascade:
        return autoattack(
            model,
            images,
            labels,
            threat,
            version=options.attack,
            attacks=attacks,
            seed=options.seed,
            batch_size=options.batch_size,
            square_queries=options.square_queries,
            precision=options.precision,
            state=state,
            watch=watch,
        )

    try:
        return found()
    except Lost:
        assert state is not None  # which was damaged, or that of another evaluation
        set_aside(state)
        return found()
