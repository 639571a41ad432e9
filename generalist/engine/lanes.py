"""Experts side by side on one GPU: each has a stream of its own, so that none waits for another's work."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def lane(on: torch.device, *, plain: bool = False) -> Iterator[None]:
    """Compute what is inside on a CUDA stream of its own; on a CPU, and where it is `plain`, nothing happens.

    It begins after all that the current stream holds, and at the end the current stream waits for it. torch keeps
    the current stream for each Python thread. What is made inside should not be freed outside: its memory would be
    given away in this stream while the other one may still read it.

    Args:
        on: where things are computed.
        plain: `engine.plain`.
    """
    if plain or on.type != "cuda" or not torch.cuda.is_available():  # that there is none is said by who computes
        yield
        return
    around, own = torch.cuda.current_stream(on), torch.cuda.Stream(on)
    own.wait_stream(around)
    try:
        with torch.cuda.stream(own):
            yield
    finally:
        around.wait_stream(own)
