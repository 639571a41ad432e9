"""Stratified, seeded splits, and images that lie in two of them: remembered, they pass for generalisation."""

import hashlib
from collections.abc import Mapping

import numpy as np

from generalist.data.dataset import Int64, Split
from generalist.errors import BadInput


def stratified_indices(labels: Int64, count: int, *, seed: int) -> Int64:
    """Return the positions of a seeded choice of `count` images, in rising order.

    Every class has its share, and one image at least where there are as many places as classes. A smaller choice is
    part of a larger one.

    Args:
        labels: int64 [n].
        count: of positions.
        seed: nothing else decides who is chosen.
    """
    draw = np.random.default_rng(seed).random(len(labels))
    order = np.lexsort((draw, labels))  # class by class, each in a random order
    sizes = np.bincount(labels)
    ranks = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # of each image in its class
    turns = np.where(ranks == 0, -1.0, (ranks + 0.5) / sizes[labels[order]])  # one of each class comes first
    return np.sort(order[np.lexsort((draw[order], turns))[:count]])


def stratified_subset(split: Split, count: int, *, seed: int, class_names: tuple[str, ...]) -> tuple[Split, Split]:
    """Return so many images to train on, and those that are left out.

    Raises:
        BadInput: there are fewer images than that, or fewer places than classes.
    """
    if count > len(split):
        raise BadInput(
            f"data.images is {count}, but there are only {len(split)} images to train on; set it to that, or to all"
        )
    if count < len(class_names):
        raise BadInput(f"data.images is {count}, too few for {len(class_names)} classes; raise it, or set it to all")
    chosen = stratified_indices(split.labels, count, seed=seed)
    return _take(split, chosen), _take(split, np.setdiff1d(np.arange(len(split)), chosen))


def stratified_split(
    split: Split, share: float, *, seed: int, class_names: tuple[str, ...], purpose: str
) -> tuple[Split, Split]:
    """Part a split in two with the same class shares, each part in the original order.

    Args:
        split: what to part.
        share: of the images to hold back, in (0, 1); rounded up to whole images.
        seed: `data.seed`; nothing else decides who is held back.
        class_names: by class index.
        purpose: `validation` or `test`, the option of `data` that gives the share.

    Returns:
        What is kept, and what is held back.

    Raises:
        BadInput: a class would be missing in one of the parts.
    """
    from sklearn.model_selection import train_test_split  # takes seconds, and most commands split nothing

    try:
        parts = train_test_split(
            np.arange(len(split)), test_size=float(share), stratify=split.labels, random_state=seed
        )
    except ValueError:  # too few images of a class, or fewer places than classes
        parts = [np.arange(0), np.arange(0)]
    kept, held = (_take(split, np.sort(part)) for part in parts)
    given, *parted = (counts(part, class_names) for part in (split, kept, held))
    absent = np.min(parted, axis=0) == 0
    if absent.any():
        scarce = int(np.where(absent, given, len(split) + 1).argmin())
        raise BadInput(
            f"class '{class_names[scarce]}' has {given[scarce]} images, too few to hold back a share of {share:g} "
            f"of {len(split)} images for {purpose} with every class on both sides; add images or change data.{purpose}"
        )
    return kept, held


def _take(split: Split, positions: Int64) -> Split:
    return Split(split.images[positions], split.labels[positions])


def counts(split: Split, class_names: tuple[str, ...]) -> Int64:
    """Return how many images each class has."""
    return np.bincount(split.labels, minlength=len(class_names))


def count_copies(splits: Mapping[str, Split]) -> dict[str, int]:
    """Return how many images of one split lie in another, too, to the pixel: by `test in train` and so on."""
    known = {name: _digests(split) for name, split in splits.items()}
    pairs = [("validation", "train"), ("test", "train"), ("test", "validation")]
    pairs += [("test", "unlabelled")] if "unlabelled" in splits else []
    return {f"{one} in {other}": len(_held(known[one], known[other])) for one, other in pairs}


def without_copies(split: Split, other: Split) -> Split:
    """Return the images of a split that do not lie in another one."""
    copies = _held(_digests(split), _digests(other))
    kept = np.setdiff1d(np.arange(len(split)), copies)
    return Split(split.images[kept], split.labels[kept])


def _digests(split: Split) -> list[bytes]:
    return [hashlib.sha256(image.tobytes()).digest() for image in split.images]


def _held(digests: list[bytes], others: list[bytes]) -> list[int]:
    """Return the positions of those that are among the others."""
    known = set(others)
    return [position for position, digest in enumerate(digests) if digest in known]
