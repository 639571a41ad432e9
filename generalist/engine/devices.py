"""Where things are computed: the device, and how many threads."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from generalist.errors import BadInput


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
    """The device of that name.

    Raises:
        BadInput: this machine has no such device.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise BadInput("training.device is cuda, but torch sees no CUDA device here: set training.device to cpu")
    return torch.device(name)
