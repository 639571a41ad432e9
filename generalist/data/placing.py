"""Where a split's images lie while experts train on them."""

import os
from pathlib import Path
from typing import Literal

import torch

from generalist.data.batches import Resident, Samples
from generalist.data.contract import Split
from generalist.data.mapped import Mapped

_SHARE = 4
"""A copy may take one such part of the free memory: experts side by side hold one each, and networks need more."""


def images_on(split: Split, device: torch.device, how: Literal["auto", "resident", "mapped"]) -> Samples:
    """Return a split for training on a device; the choice decides no bit of a batch.

    Args:
        split: memory-mapped, as `load` gives it.
        device: where batches are needed.
        how: `resident` on the device, `mapped` on the disk, or `auto`: resident where the images take at most
            a quarter of the device's free memory.
    """
    fits = how == "resident" or (how == "auto" and _SHARE * split.images.nbytes <= free_memory(device))
    return Resident.of(split, device=device) if fits else Mapped(split, device=device)


def free_memory(device: torch.device) -> int:
    """Return the bytes that can still be had on a device; of the CPU, where the system doesn't tell, all it has."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
