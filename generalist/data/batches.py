"""A split that lives on the device as uint8, and the batches of an epoch."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from generalist.data import augmentation
from generalist.data.dataset import Split
from generalist.randomness import generator, permutation
from generalist.tensors import Batch, Images, Labels, to_unit


class Samples(ABC):
    """The images of a split, wherever they lie; every place gives the same bits."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the batches come out."""

    @abstractmethod
    def __len__(self) -> int:
        """Return how many samples there are."""

    @abstractmethod
    def batch(self, ids: Labels) -> Batch:
        """Return the samples at positions `ids` (int64, on the CPU or the device), pixels as float32 in [0, 1]."""

    @abstractmethod
    def batches(self, order: Labels, batch_size: int) -> Generator[Batch]:
        """Yield the samples at positions `order` (int64), `batch_size` at a time; the last batch may be smaller."""


@dataclass(frozen=True)
class InMemorySamples(Samples):
    """A split on the device: images uint8, labels int64."""

    images: UInt8[Tensor, "samples channels height width"]
    labels: Int[Tensor, " samples"]

    @classmethod
    def of(cls, split: Split, *, device: torch.device | str = "cpu") -> Self:
        """Copy a split to the device; what it is mapped from may then change or go."""
        images, labels = (torch.from_numpy(np.array(part)) for part in (split.images, split.labels))
        return cls(images.to(device), labels.to(device))

    @property
    def device(self) -> torch.device:
        """Where the images are, too."""
        return self.images.device

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, ids: Labels) -> Batch:
        """Gather the batch on the device."""
        ids = ids.to(self.device)
        return Batch(to_unit(self.images[ids]), self.labels[ids], ids)

    def batches(self, order: Labels, batch_size: int) -> Generator[Batch]:
        """Send the order to the device once, not once a batch."""
        return (self.batch(ids) for ids in in_batches(order.to(self.device), batch_size))


def epoch(
    split: Samples,
    *,
    seed: int,
    epoch: int,
    batch_size: int,
    augment: tuple[str, ...],
    first: int = 0,
    second: bool = False,
    unlabelled: Samples | None = None,
) -> Iterator[Batch]:
    """Yield one pass over a split in the order of (seed, epoch), or the rest of it; the last batch may be smaller.

    Args:
        split: what to pass over.
        seed: the configuration's seed.
        epoch: from 0.
        batch_size: images per batch.
        augment: names for `augment`, whose draws depend on (seed, epoch, step) and nothing else.
        first: step to begin with, from 0; what comes before is not read.
        second: augment each image once more, by numbers of its own, see `Batch.second`.
        unlabelled: draw as many of these for each batch, by numbers of their own, see `Batch.unlabelled`.
    """
    order = permutation(seed, epoch, len(split))[first * batch_size :]

    def augmented(images: Images, *place: int) -> Images:
        if not augment:
            return images
        return augmentation.augment(images, augment, generator(seed, "augment", epoch, *place, device=split.device))

    # Closed by name: some versions of Python keep a generator's locals, and so a thread that reads, after its `close`.
    with closing(split.batches(order, batch_size)) as batches:
        for step, batch in enumerate(batches, start=first):
            view = augmented(batch.images, step, 1) if second else None
            others = None
            if unlabelled is not None:
                drawn = generator(seed, "order", epoch, step)
                positions = torch.randint(len(unlabelled), (len(batch),), generator=drawn)
                others = augmented(unlabelled.batch(positions).images, step, 2)
            yield Batch(augmented(batch.images, step), batch.labels, batch.ids, view, others)


def in_batches(order: Labels, batch_size: int) -> Iterator[Labels]:
    """Yield consecutive pieces of `order`, the last of which may be smaller, or larger by one.

    A single image that would be left over joins the piece before: BatchNorm can't train on one image of one pixel.
    """
    steps = steps_per_epoch(len(order), batch_size)
    return (
        order[step * batch_size : (step + 1) * batch_size if step + 1 < steps else len(order)] for step in range(steps)
    )


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Return batches in a pass over `count` images, the last one of another size included, see `in_batches`."""
    whole, rest = divmod(count, batch_size)
    return whole + (rest > 1 or (rest == 1 and whole == 0))


def last_batch(count: int, batch_size: int) -> int:
    """Return images in the last batch of a pass."""
    return count - (steps_per_epoch(count, batch_size) - 1) * batch_size
