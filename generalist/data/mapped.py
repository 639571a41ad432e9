"""Where a split's images lie while experts train on them: on the device, or on disk, read batch by batch."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch

from generalist.data.batches import InMemorySamples, Samples, in_batches
from generalist.data.dataset import Split, Uint8
from generalist.tensors import Batch, Labels, to_unit

Item = TypeVar("Item")
Result = TypeVar("Result")
_SHARE = 4
"""A copy may take one such part of the free memory: experts side by side hold one each, and networks need more."""


class MappedSamples(Samples):
    """Images memory-mapped as `load` gives them; labels, eight bytes each, on the device."""

    def __init__(self, split: Split, *, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        self._images = split.images
        self._labels = torch.from_numpy(np.array(split.labels)).to(self._device)

    @property
    def device(self) -> torch.device:
        """Where the labels are; images come there batch by batch."""
        return self._device

    def __len__(self) -> int:
        return len(self._labels)

    def batch(self, ids: Labels) -> Batch:
        """Read now."""
        ids = ids.cpu()
        return self._placed(self._rows(ids), ids)

    def batches(self, order: Labels, batch_size: int) -> Generator[Batch]:
        """Read one batch ahead of its use."""
        pieces = list(in_batches(order.cpu(), batch_size))
        with closing(_one_ahead(self._rows, pieces)) as read:
            for ids, rows in zip(pieces, read, strict=True):
                yield self._placed(rows, ids)

    def _rows(self, ids: Labels) -> Uint8:
        """Return images at positions, read in the order in which they lie on the disk."""
        positions = ids.numpy()
        by_place = np.argsort(positions)
        rows = np.empty((len(positions), *self._images.shape[1:]), dtype=np.uint8)
        rows[by_place] = self._images[positions[by_place]]
        return rows

    def _placed(self, rows: Uint8, ids: Labels) -> Batch:
        """Place the batch on the device; out of pinned memory the copy waits for nothing."""
        images = torch.from_numpy(rows)
        if self._device.type == "cuda":
            images, ids = images.pin_memory(), ids.pin_memory()
        ids = ids.to(self._device, non_blocking=True)
        return Batch(to_unit(images.to(self._device, non_blocking=True)), self._labels[ids], ids)


def _one_ahead(work: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result]:
    """Yield the results of `work` in order; while one is in use, a thread makes the next."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="images") as thread:
        coming: deque[Future[Result]] = deque()
        for item in items:
            coming.append(thread.submit(work, item))
            if len(coming) > 1:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def images_on(split: Split, device: torch.device, how: Literal["auto", "resident", "mapped"]) -> Samples:
    """Return a split for training on a device; the choice decides no bit of a batch.

    Args:
        split: memory-mapped, as `load` gives it.
        device: where batches are needed.
        how: `resident` on the device, `mapped` on the disk, or `auto`: resident where the images take at most
            a quarter of the device's free memory.
    """
    fits = how == "resident" or (how == "auto" and _SHARE * split.images.nbytes <= free_memory(device))
    return InMemorySamples.of(split, device=device) if fits else MappedSamples(split, device=device)


def free_memory(device: torch.device) -> int:
    """Return the bytes that can still be had on a device; of the CPU, where the system doesn't tell, all it has."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
