"""Where things are computed: the device, in which stream, and how many threads."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from generalist.config import Config
from generalist.errors import BadInput

NAMES = ("auto", "cpu", "cuda")


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run a block with `count` intra-op threads: their number decides the bits of a result.

    torch keeps the number for each Python thread that sets it, so code that runs in one must enter this block.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def lane(on: torch.device, *, eager: bool = False) -> Iterator[None]:
    """Compute on a CUDA stream of its own, so that no expert waits for another's work; `eager` and on a CPU, nothing.

    It begins after all that the current stream holds, and at the end the current stream waits for it. torch keeps
    the current stream for each Python thread. What is made inside should not be freed outside: its memory would be
    given away in this stream while the other one may still read it.

    Args:
        on: where things are computed.
        eager: `engine.eager`.
    """
    if eager or on.type != "cuda" or not torch.cuda.is_available():  # the computation itself reports a missing GPU
        yield
        return
    around, stream = torch.cuda.current_stream(on), torch.cuda.Stream(on)
    stream.wait_stream(around)
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        around.wait_stream(stream)


def device(name: str) -> torch.device:
    """Return the device of that name: cpu, or cuda (the one GPU that a process sees); auto is cuda where there is one.

    Raises:
        BadInput: it is none of them, or this machine has no such device.
    """
    if name not in NAMES:
        raise BadInput(
            f"{name[:40]!r} is no device here: set training.device, or --device, to one of {', '.join(NAMES)}, and"
            " choose among GPUs with CUDA_VISIBLE_DEVICES"
        )
    if name == "cuda" and not torch.cuda.is_available():
        raise BadInput(
            "the device is cuda, but torch sees no CUDA device here: set training.device to cpu or auto, or --device to"
            " cpu"
        )
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def with_device(config: Config) -> Config:
    """Return a configuration with the device that `training.device: auto` means here.

    Keys and digests are made of this one: they tell devices apart, and know no auto.
    """
    if config.training.device != "auto":
        return config
    on = device("auto").type
    return config.model_copy(update={"training": config.training.model_copy(update={"device": on})})


def told(name: str) -> str:
    """Return a description of the device of that name, for readers."""
    on = device(name)
    kind = torch.cuda.get_device_name(on) if on.type == "cuda" else "the CPU"
    if name != "auto":
        return kind
    return f"{kind}, by training.device: auto" + ("" if on.type == "cuda" else ", as torch sees no CUDA device here")
