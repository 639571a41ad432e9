"""Accuracies of a learner by one attack, in tiles of a fixed size."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from generalist import engine
from generalist.attacks import VERSIONS, AttackProgress, attack_from, autoattack, misclassified
from generalist.attacks.fixed_batches import logits_of
from generalist.attacks.losses import cross_entropy, loss_through
from generalist.config import AttackOptions, EvaluationOptions, ThreatOptions
from generalist.data import Split
from generalist.models import DECISION, Classifier
from generalist.randomness import generator
from generalist.records import Accuracy, Measured
from generalist.tensors import Images, Labels, Logits, to_unit
from generalist.threats import threat_from

TILE = 256
"""Images that are attacked together. The size of a batch changes the last bits of its logits, so it is fixed."""

Network = Callable[[Images], Logits]
Flags = NDArray[np.bool_]
Float32 = NDArray[np.float32]


def measure(
    model: Classifier,
    split: Split,
    *,
    threats: Sequence[ThreatOptions],
    attack: AttackOptions | EvaluationOptions,
    fgsm: bool = False,
) -> Measured:
    """Measure natural accuracy, and robust accuracy against one attack (and FGSM), of a learner in eval mode.

    An image is robust that stands in every threat. With an evaluation's options in place of an attack, robust accuracy
    is that against its cascade.
    """
    natural, robust = zip(*(_flags(model, split, threat, attack) for threat in threats), strict=True)
    one_step = AttackOptions(name="fgsm", steps=1)
    single = [attacked(model, split, threat, one_step, seed=0)[1] for threat in threats if fgsm]
    return Measured(
        natural=accuracy(natural[0]),
        robust=accuracy(np.logical_and.reduce(robust)),
        fgsm=accuracy(np.logical_and.reduce(single)) if single else None,
    )


def _flags(
    model: Classifier, split: Split, threat: ThreatOptions, attack: AttackOptions | EvaluationOptions
) -> tuple[Flags, Flags]:
    """Return which images are right, clean and after the attack."""
    if isinstance(attack, AttackOptions) and attack.name not in VERSIONS:
        return attacked(model, split, threat, attack, seed=0)[:2]
    images, labels = whole(split, device(model))
    verdicts = autoattack(model, images, labels, threat_from(threat), **cascade_settings(attack))
    return verdicts.clean.cpu().numpy(), verdicts.robust.cpu().numpy()


def cascade_settings(attack: AttackOptions | EvaluationOptions) -> dict[str, Any]:
    """Return the settings of the cascade that is meant, by the names of its arguments."""
    if isinstance(attack, AttackOptions):
        return {"version": attack.name, "batch_size": TILE}
    return {
        "version": attack.attack,
        "seed": attack.seed,
        "batch_size": attack.batch_size,
        "square_queries": attack.square_queries,
        "precision": attack.precision,
    }


def accuracy(flags: Flags) -> Accuracy:
    """Return the share of true verdicts."""
    return Accuracy(correct=int(flags.sum()), n=len(flags))


def whole(split: Split, on: torch.device) -> tuple[Images, Labels]:
    """Return all images of a split with their labels."""
    return to_unit(torch.from_numpy(np.array(split.images)).to(on)), torch.from_numpy(np.array(split.labels)).to(on)


def decision(model: Classifier) -> Network:
    """Return the deployed function of a learner, in eval mode and without gradients of its weights."""
    model.eval().requires_grad_(requires_grad=False)
    return model.views()[DECISION]


def device(model: Classifier) -> torch.device:
    """Return where a learner is."""
    return model.mean.device


def tiles(split: Split, on: torch.device) -> Iterator[tuple[Images, Labels]]:
    """Yield the images of a split with their labels, `TILE` at a time."""
    for start in range(0, len(split), TILE):
        images = torch.from_numpy(np.array(split.images[start : start + TILE])).to(on)
        yield to_unit(images), torch.from_numpy(np.array(split.labels[start : start + TILE])).to(on)


def attacked(
    model: Classifier,
    split: Split,
    threat: ThreatOptions,
    attack: AttackOptions,
    *,
    seed: int,
    first: int = 0,
    through: Network | None = None,
    watch: Callable[[AttackProgress], None] | None = None,
) -> tuple[Flags, Flags, Float32]:
    """Return which images are right, clean and after the attack, and where it ended; a mistake isn't robust.

    Args:
        model: the learner.
        split: the images.
        threat: the ball to stay in.
        attack: of those that train.
        seed: of its random numbers.
        first: place of the first image in the whole split, a multiple of `TILE`.
        through: the function that the attack sees, by default the decision.
        watch: told how far it is, before the first batch and after each.
    """
    network, on = decision(model), device(model)
    searched = network if through is None else through
    loss = loss_through(searched, cross_entropy)
    run = attack_from(attack, threat_from(threat))
    natural, robust = [np.zeros(0, dtype=np.bool_)], [np.zeros(0, dtype=np.bool_)]
    ends = [np.zeros((0, *split.images.shape[1:]), dtype=np.float32)]

    def tell(images: int) -> None:
        done, broken = sum(map(len, robust)), sum(int((~flags).sum()) for flags in robust)
        if watch is not None and len(split):
            watch(AttackProgress(attack.name, images, done / len(split), len(split) - broken, len(split)))

    tell(0)
    for index, (images, labels) in enumerate(tiles(split, on), start=first // TILE):
        with engine.arithmetic(on):
            draw = generator(seed, "evaluation", index, device=on)
            points = run(searched, images, labels, loss=loss, generator=draw)
            clean = logits_of(network, images).argmax(1) == labels
            held = clean & ~misclassified(logits_of(network, points), labels)
        natural.append(clean.cpu().numpy())
        robust.append(held.cpu().numpy())
        ends.append(points.cpu().numpy())
        tell(len(images))
    return np.concatenate(natural), np.concatenate(robust), np.concatenate(ends)
