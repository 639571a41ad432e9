"""Images that lie in two splits: a model that remembers them is taken for one that generalises."""

import hashlib
from collections.abc import Mapping

import numpy as np

from generalist.data.contract import Split


def count_copies(splits: Mapping[str, Split]) -> dict[str, int]:
    """Return how many images of one split lie in another, too, to the pixel: by `test in train` and so on."""
    known = {name: _digests(split) for name, split in splits.items()}
    pairs = (("validation", "train"), ("test", "train"), ("test", "validation"))
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
