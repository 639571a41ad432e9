"""The evaluation of one learner, from the verdicts on every image."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from generalist.attacks.result import flags
from generalist.config import EvaluationOptions
from generalist.data import Split
from generalist.evaluation.accuracy import Flags, Float32, accuracy
from generalist.evaluation.shards import Shard, Watch, attack_shard, concatenate
from generalist.models import Classifier
from generalist.records import LearnerEvaluation, Measured, Point, ThreatEvaluation
from generalist.threats import threat_from

_ALONE = Point()


@dataclass(frozen=True)
class Verdicts:
    """What became of each image.

    Attributes:
        evaluation: the accuracies.
        arrays: per-image arrays by name, as `verdicts.npz` holds them; see `docs/architecture.md`.
        adversarial: float32 [n, C, H, W], under the headline threat, see `Shard`.
    """

    evaluation: LearnerEvaluation
    arrays: dict[str, NDArray[np.generic]]
    adversarial: Float32


def evaluate(
    model: Classifier,
    split: Split,
    *,
    options: EvaluationOptions,
    class_names: tuple[str, ...],
    name: str,
    epoch: int,
    digest: str,
    at: Point = _ALONE,
    watch: Watch | None = None,
) -> Verdicts:
    """Evaluate everything about one learner in eval mode on the test split.

    Args:
        model: the learner.
        split: the images.
        options: threats and attacks.
        class_names: in the order of the labels.
        name: an expert's name, or `global`.
        epoch: epochs done by these weights.
        digest: SHA-256 (hex) of the weights.
        at: at which condition and width a network is this model.
        watch: told the threat, and how far each attack is.
    """
    shard = attack_shard(model, split, range(len(split)), options=options, watch=watch)
    return combine_shards(
        [shard],
        options=options,
        class_names=class_names,
        name=name,
        epoch=epoch,
        digest=digest,
        at=at,
    )


def combine_shards(
    shards: Sequence[Shard],
    *,
    options: EvaluationOptions,
    class_names: tuple[str, ...],
    name: str,
    epoch: int,
    digest: str,
    at: Point = _ALONE,
) -> Verdicts:
    """Return the evaluation that all shards of a split come to; the arguments are those of `evaluate`."""
    whole = concatenate(shards)
    arrays: dict[str, Any] = whole.arrays
    labels: NDArray[np.int64] = arrays["label"]
    natural: Flags = arrays["prediction"] == labels
    worst = {
        threat: _all(arrays[f"{threat}/{column}"] for column in columns) for threat, columns in whole.columns.items()
    }
    headline = [worst[str(threat_from(threat))] for threat in options.headline_threats]
    evaluation = LearnerEvaluation(
        name=name,
        epoch=epoch,
        natural=accuracy(natural),
        threats=tuple(
            ThreatEvaluation(
                threat=threat,
                columns={column: accuracy(arrays[f"{threat}/{column}"]) for column in whole.columns[threat]},
                worst=accuracy(worst[threat]),
                flags=flags(counts, len(labels)),
            )
            for threat, counts in whole.flag_counts.items()
        ),
        union=accuracy(_all(worst.values())) if len(worst) > 1 else None,
        per_class=_per_class(labels, class_names, natural, _all(headline)),
        digest=digest,
        condition=at.condition,
        width=at.width,
    )
    named = {key if key == "label" else f"{name}/{key}": array for key, array in arrays.items()}
    return Verdicts(evaluation, named, whole.adversarial)


def _all(verdicts: Iterable[Flags]) -> Flags:
    """Return which images stand in all of them."""
    every: Flags = np.logical_and.reduce(list(verdicts))
    return every


def _per_class(
    labels: NDArray[np.int64], class_names: tuple[str, ...], natural: Flags, robust: Flags
) -> dict[str, Measured]:
    rows = {name: labels == index for index, name in enumerate(class_names)}
    return {name: Measured(natural=accuracy(natural[row]), robust=accuracy(robust[row])) for name, row in rows.items()}
