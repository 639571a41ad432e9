"""A split that stays on disk: its images are read batch by batch."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

import numpy as np
import torch

from generalist.data.batches import Samples, in_batches
from generalist.data.contract import Split, Uint8
from generalist.tensors import Batch, Labels, to_unit

Item = TypeVar("Item")
Result = TypeVar("Result")


class Mapped(Samples):
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
