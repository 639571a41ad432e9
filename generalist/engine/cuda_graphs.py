"""Work that launches the same kernels each time: recorded once as a CUDA graph, then repeated in one launch.

A step of PGD on a GPU is some hundred small kernels, and Python may take longer to launch them than the GPU to run
them. A graph has fixed addresses: inputs are copied into buffers, and the result out of one.
"""

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from generalist.engine.fallback import ALONE, first_line_of, warn_once

_MOST = 16
"""Kinds of work that are remembered: each graph keeps its memory. A loss made anew for each call is never met again."""

Computation = Callable[..., Tensor]
"""From inputs, which it may overwrite, to a result; deterministic, without waiting for the device."""


Record = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]
"""Records what is done, and gives what does it again and returns the result's buffer."""


def cuda_graph(done: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Record by a CUDA graph, to be replayed on whatever stream is current then.

    While it is captured, nothing is computed. Only this thread's calls may break it, as experts work in threads.
    """
    graph, stream, around = torch.cuda.CUDAGraph(), torch.cuda.Stream(), torch.cuda.current_stream()
    stream.wait_stream(around)
    try:
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            result = done()
    finally:
        torch.cuda.set_stream(around)  # torch leaves its own where the capture fails
    around.wait_stream(stream)

    def again() -> Tensor:
        graph.replay()
        return result

    return again


class _Recorded:
    """One kind of work, with buffers for its inputs."""

    def __init__(self, record: Record, work: Computation, inputs: Sequence[Tensor]) -> None:
        self._buffers = [given.clone() for given in inputs]
        self._again = record(lambda: work(*self._buffers))

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        for buffer, given in zip(self._buffers, inputs, strict=True):
            buffer.copy_(given)  # also those that work overwrites
        return self._again().clone()


class GraphCache:
    """The repeatable work of one network.

    The first call of a kind computes as it is told to, which also warms up libraries that must not begin inside a
    capture. The second one records, and compares; from the third on the recording is repeated. What can't be
    recorded, or gives something else, is computed as it is from then on.
    """

    def __init__(self, record: Record) -> None:
        self._record = record
        self._known: dict[Hashable, _Recorded | None] = {}
        self._met: set[Hashable] = set()

    @property
    def recordings(self) -> int:
        """How many kinds of work are repeated."""
        return sum(recorded is not None for recorded in self._known.values())

    def __call__(
        self, key: Hashable, work: Computation, inputs: Sequence[Tensor], agrees: Callable[[Tensor, Tensor], bool]
    ) -> Tensor:
        """Return the result of `work(*inputs)`, a tensor of its own.

        Args:
            key: what decides the work besides the inputs' numbers, shapes, dtypes and places.
            work: see `Computation`; tensors that it finds elsewhere must stay at their addresses.
            inputs: all that changes.
            agrees: whether the recording's result, the first argument, will do for the second.
        """
        autocast = torch.is_autocast_enabled(inputs[0].device.type)
        kind = (key, autocast, *((given.shape, given.stride(), given.dtype, given.device) for given in inputs))
        recorded = self._known.get(kind)
        if recorded is not None:
            return recorded(inputs)
        if kind in self._met and kind not in self._known:
            return self._recorded(kind, work, inputs, agrees)
        if len(self._met) < _MOST:
            self._met.add(kind)
        elif kind not in self._met:
            warn_once(f"attacks come in more than {_MOST} kinds: the others go on without CUDA graphs")
        return work(*inputs)

    def _recorded(
        self, kind: Hashable, work: Computation, inputs: Sequence[Tensor], agrees: Callable[[Tensor, Tensor], bool]
    ) -> Tensor:
        expected = work(*(given.clone() for given in inputs))
        self._known[kind] = None
        try:
            with ALONE:
                recorded = _Recorded(self._record, work, inputs)
            if agrees(recorded(inputs), expected):
                self._known[kind] = recorded
            else:
                warn_once("an attack repeated by a CUDA graph gave other images: attacks go on without graphs")
        except Exception as error:  # noqa: BLE001  a capture fails in many ways, and none is worth a training
            warn_once(
                f"an attack can't be recorded as a CUDA graph ({first_line_of(error)}): attacks go on without graphs"
            )
        return expected
