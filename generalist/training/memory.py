"""Running out of memory, told with the batch size that would fit."""

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from generalist.attacks.fixed_batches import NO_MEMORY
from generalist.errors import BadInput
from generalist.experts import Expert
from generalist.tensors import Batch, ImageShape


@contextmanager
def oom_to_batch_size_hint(experts: Sequence[Expert], shape: ImageShape, on: torch.device) -> Iterator[None]:
    """Watch steps of experts inside; where memory doesn't suffice, smaller ones are tried, and the experts are spoilt.

    Raises:
        BadInput: there was not enough memory.
    """
    try:
        yield
        return
    except (MemoryError, RuntimeError) as error:  # CUDA's own is a RuntimeError
        if not isinstance(error, MemoryError) and not any(sign in str(error) for sign in NO_MEMORY):
            raise
        traceback.clear_frames(error.__traceback__)  # which hold the tensors of the step that failed
    if on.type == "cuda":
        torch.cuda.empty_cache()
    size = experts[0].spec.batch_size
    fitting = next((half for half in _halves(size) if _fits(half, experts, shape, on)), None)
    mend = "a smaller network" if fitting is None else f"training.batch_size={fitting}, with which a step succeeded"
    raise BadInput(f"the memory of {on} does not suffice for steps of {size} images: set {mend}")


def _halves(size: int) -> Iterator[int]:
    while size > 1:
        size //= 2
        yield size


def _fits(size: int, experts: Sequence[Expert], shape: ImageShape, on: torch.device) -> bool:
    """Return whether a step of every expert succeeds with so many images."""
    try:
        images = torch.zeros(size, shape.channels, shape.height, shape.width, device=on)
        labels = torch.zeros(size, dtype=torch.int64, device=on)
        for expert in experts:
            expert.step(Batch(images, labels, labels, images, images), 1, 0)
    except (MemoryError, RuntimeError, ValueError):  # a BatchNorm of single pixels takes no single image
        return False
    return True
