"""Where things are computed: the device, and how many threads."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from generalist.errors import BadInput

NAMES = ("cpu", "cuda")


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run a block with `count` intra-op threads: their number decides the bits of a result.

    torch keeps the number for each Python thread that sets it, so whoever runs in one must enter this block.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def device(name: str) -> torch.device:
    """The device of that name: cpu or cuda, which is the one GPU that a process sees.

    Raises:
        BadInput: it is neither, or this machine has no such device.
    """
    if name not in NAMES:
        raise BadInput(
            f"{name[:40]!r} is no device here: set training.device, or --device, to one of {', '.join(NAMES)}, and"
            " choose among GPUs with CUDA_VISIBLE_DEVICES"
        )
    if name == "cuda" and not torch.cuda.is_available():
        raise BadInput(
            "the device is cuda, but torch sees no CUDA device here: set training.device to cpu, or --device cpu"
        )
    return torch.device(name)
