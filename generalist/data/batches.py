"""A split that lives on the device as uint8, and the batches of an epoch."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from generalist.data import augmentation
from generalist.data.contract import Split
from generalist.randomness import generator, permutation
from generalist.tensors import Batch, Labels, to_unit


@dataclass(frozen=True)
class Resident:
    """A split on the device: images uint8, labels int64."""

    images: UInt8[Tensor, "samples channels height width"]
    labels: Int[Tensor, " samples"]

    @classmethod
    def of(cls, split: Split, *, device: torch.device | str = "cpu") -> Self:
        """Copy a split to the device; what it is mapped from may then change or go."""
        images, labels = (torch.from_numpy(np.array(part)) for part in (split.images, split.labels))
        return cls(images.to(device), labels.to(device))

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, ids: Labels) -> Batch:
        """The samples at positions `ids` (int64, on the device), pixels as float32 in [0, 1]."""
        return Batch(to_unit(self.images[ids]), self.labels[ids], ids)


def epoch(split: Resident, *, seed: int, epoch: int, batch_size: int, augment: tuple[str, ...]) -> Iterator[Batch]:
    """One pass over a split in the order of (seed, epoch); the last batch may be smaller.

    Args:
        split: what to pass over.
        seed: the configuration's seed.
        epoch: from 0.
        batch_size: images per batch.
        augment: names for `augment`, whose draws depend on (seed, epoch, step) and nothing else.
    """
    device = split.images.device
    order = permutation(seed, epoch, len(split)).to(device)
    for step in range(steps_per_epoch(len(split), batch_size)):
        ids = order[step * batch_size : (step + 1) * batch_size]
        batch = split.batch(ids)
        if augment:
            draws = generator(seed, "augment", epoch, step, device=device)
            batch = Batch(augmentation.augment(batch.images, augment, draws), batch.labels, ids)
        yield batch


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Batches in a pass over `count` images, the smaller last one included."""
    return -(-count // batch_size)
