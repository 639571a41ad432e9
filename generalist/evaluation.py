"""Accuracies with their n and interval, and the verdict on every image behind them."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from generalist.attacks import VERSIONS, Cascade, attack_from, autoattack, fooled
from generalist.attacks.tiles import logits_of
from generalist.config import AttackOptions, Config, EvaluationOptions, ThreatOptions
from generalist.data import Dataset, Split
from generalist.models import Classifier
from generalist.randomness import generator
from generalist.records import STRONGER, Accuracy, LearnerEvaluation, Measured, Protocol, ThreatEvaluation
from generalist.tensors import Images, Labels, Logits, to_unit
from generalist.threats import Threat, threat_from

TILE = 256
"""Images that are attacked together. The size of a batch changes the last bits of its logits, so it is fixed."""

Network = Callable[[Images], Logits]
Flags = NDArray[np.bool_]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Verdicts:
    """What became of each image.

    Attributes:
        evaluation: the accuracies.
        arrays: per-image arrays by name, as `verdicts.npz` holds them; see `docs/architecture.md`.
        adversarial: float32 [n, C, H, W], under the headline threat: what the cascade found, and where it
            found nothing, where PGD ended.
    """

    evaluation: LearnerEvaluation
    arrays: dict[str, NDArray[np.generic]]
    adversarial: Float32


def measure(model: Classifier, split: Split, *, threat: ThreatOptions, attack: AttackOptions) -> Measured:
    """Natural accuracy, and robust accuracy against one attack, of a learner in eval mode."""
    n = len(split)
    if attack.name in VERSIONS:
        images, labels = _whole(split, _device(model))
        verdicts = autoattack(model, images, labels, threat_from(threat), version=attack.name, batch_size=TILE)
        natural, robust = verdicts.clean.cpu().numpy(), verdicts.robust.cpu().numpy()
    else:
        natural, robust, _ = _attacked(_decision(model), _device(model), split, threat, attack, seed=0)
    return Measured(natural=Accuracy(correct=int(natural.sum()), n=n), robust=Accuracy(correct=int(robust.sum()), n=n))


def evaluate(
    model: Classifier,
    split: Split,
    *,
    options: EvaluationOptions,
    class_names: tuple[str, ...],
    name: str,
    epoch: int,
    digest: str,
    states: Path | None = None,
) -> Verdicts:
    """Everything about one learner in eval mode on the test split.

    Args:
        model: the learner.
        split: the images.
        options: threats and attacks.
        class_names: in the order of the labels.
        name: an expert's name, or `global`.
        epoch: epochs done by these weights.
        digest: SHA-256 (hex) of the weights.
        states: a folder for the states of the cascades, so that a killed evaluation goes on.
    """
    network = _decision(model)
    labels = np.asarray(split.labels)
    tiles = _tiles(split, _device(model))
    predictions = np.concatenate([logits_of(network, images).argmax(1).cpu().numpy() for images, _ in tiles])
    natural: Flags = predictions == labels
    arrays: dict[str, NDArray[np.generic]] = {"label": labels, f"{name}/prediction": predictions}
    threats: list[ThreatEvaluation] = []
    headline: tuple[Flags, Float32] | None = None
    for written in options.threats:
        threat = threat_from(written)
        _, pgd, ends = _attacked(network, _device(model), split, written, options.pgd, seed=options.seed)
        found = _cascade(model, split, threat, options, options.attack, None, states)
        cascade, key = found.robust.cpu().numpy(), f"{name}/{threat}"
        arrays |= {f"{key}/pgd": pgd, f"{key}/cascade": cascade, f"{key}/margin": found.margins.cpu().numpy()}
        arrays[f"{key}/fooled_by"] = np.array([attack or "" for attack in found.fooled_by], dtype=np.str_)
        strongest = None
        if options.stronger:
            survivors = Split(np.asarray(split.images)[cascade], labels[cascade])
            again = _cascade(model, survivors, threat, options, options.attack, STRONGER, states)
            held = cascade.copy()
            held[cascade] = again.robust.cpu().numpy()
            arrays[f"{key}/strongest"] = held
            strongest = _accuracy(held)
        threats.append(
            ThreatEvaluation(
                threat=str(threat),
                pgd=_accuracy(pgd),
                cascade=_accuracy(cascade),
                strongest=strongest,
                flags=found.flags,
            )
        )
        adversarial = found.adversarial.cpu().numpy()
        headline = headline or (cascade, np.where(cascade[:, None, None, None], ends, adversarial))
    assert headline is not None  # the configuration has one threat at least
    result = LearnerEvaluation(
        name=name,
        epoch=epoch,
        natural=_accuracy(natural),
        threats=tuple(threats),
        per_class=_per_class(labels, class_names, natural, headline[0]),
        digest=digest,
    )
    return Verdicts(result, arrays, headline[1])


def protocol(config: Config, dataset: Dataset) -> Protocol:
    """What the robust accuracies of a configuration mean."""
    options = config.evaluation
    threats = tuple(str(threat_from(threat)) for threat in options.threats)
    return Protocol(
        split="test",
        n=len(first(dataset.test, options.images)),
        threats=threats,
        pgd=_described(options.pgd),
        cascade=_cascade_described(options),
        seed=options.seed,
        test_digest=dataset.test_digest,
        validation=f"{threats[0]} {_described(options.choice)} on {dataset.digest}",
    )


def _cascade_described(options: EvaluationOptions) -> str:
    by_queries = "square" in VERSIONS[options.attack].members
    return f"{options.attack}, {options.square_queries} queries" if by_queries else options.attack


def _described(attack: AttackOptions) -> str:
    if attack.name != "pgd":
        return attack.name
    size = "2.5 eps / steps" if attack.step_size is None else str(attack.step_size.written)
    return f"pgd, {attack.steps} steps of {size}, {'random start' if attack.random_start else 'no random start'}"


def first(split: Split, images: int | str) -> Split:
    """The first `images` of a split in its own order, or all of it."""
    return split if images == "all" else Split(split.images[: int(images)], split.labels[: int(images)])


def _decision(model: Classifier) -> Network:
    model.eval().requires_grad_(requires_grad=False)
    return model.views()["decision"]


def _device(model: Classifier) -> torch.device:
    return model.mean.device


def _tiles(split: Split, on: torch.device) -> Iterator[tuple[Images, Labels]]:
    for start in range(0, len(split), TILE):
        images = torch.from_numpy(np.array(split.images[start : start + TILE])).to(on)
        yield to_unit(images), torch.from_numpy(np.array(split.labels[start : start + TILE])).to(on)


def _attacked(
    network: Network, on: torch.device, split: Split, threat: ThreatOptions, attack: AttackOptions, *, seed: int
) -> tuple[Flags, Flags, Float32]:
    """Which images are classified correctly, clean and after the attack, and where it ended; a mistake isn't robust."""
    run, ball = attack_from(attack), threat_from(threat)
    natural, robust = [np.zeros(0, dtype=np.bool_)], [np.zeros(0, dtype=np.bool_)]
    ends = [np.zeros((0, *split.images.shape[1:]), dtype=np.float32)]
    for index, (images, labels) in enumerate(_tiles(split, on)):
        found = run(network, images, labels, ball, generator=generator(seed, "evaluation", index, device=on))
        clean = logits_of(network, images).argmax(1) == labels
        natural.append(clean.cpu().numpy())
        robust.append((clean & ~fooled(logits_of(network, found), labels)).cpu().numpy())
        ends.append(found.cpu().numpy())
    return np.concatenate(natural), np.concatenate(robust), np.concatenate(ends)


def _cascade(
    model: Classifier,
    split: Split,
    threat: Threat,
    options: EvaluationOptions,
    version: str,
    attacks: tuple[str, ...] | None,
    states: Path | None,
) -> Cascade:
    images, labels = _whole(split, _device(model))
    name = hashlib.sha256(repr((version, attacks, str(threat))).encode()).hexdigest()[:16]
    return autoattack(
        model,
        images,
        labels,
        threat,
        version=version,
        attacks=attacks,
        seed=options.seed,
        batch_size=options.batch_size,
        square_queries=options.square_queries,
        state=None if states is None else states / f"{name}.safetensors",
    )


def _whole(split: Split, on: torch.device) -> tuple[Images, Labels]:
    return to_unit(torch.from_numpy(np.array(split.images)).to(on)), torch.from_numpy(np.array(split.labels)).to(on)


def _accuracy(flags: Flags) -> Accuracy:
    return Accuracy(correct=int(flags.sum()), n=len(flags))


def _per_class(
    labels: NDArray[np.int64], class_names: tuple[str, ...], natural: Flags, robust: Flags
) -> dict[str, Measured]:
    rows = {name: labels == index for index, name in enumerate(class_names)}
    return {
        name: Measured(natural=_accuracy(natural[row]), robust=_accuracy(robust[row])) for name, row in rows.items()
    }
