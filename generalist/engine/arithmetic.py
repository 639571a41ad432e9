"""TF32 and cuDNN's choice of algorithms: settings of the whole process, which threads take turns to need."""

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class _Switch:
    """Threads that want the same setting go side by side; one that wants another waits until they have left.

    First come, first served, or two threads in turn could keep a third one out for good. A thread holds one setting at
    a time: an inner block releases the outer one, so there is no deadlock.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tf32 = False
        self._inside = 0
        self._waiting: list[list[bool]] = []  # lists, so that equal wishes are told apart
        self._found: _Settings | None = None
        self._held = threading.local()

    @contextmanager
    def hold(self, *, tf32: bool) -> Iterator[None]:
        """Compute what is inside with this setting."""
        outer: bool | None = getattr(self._held, "tf32", None)
        if outer == tf32:
            yield
            return
        if outer is not None:
            self._leave()
        self._enter(tf32)
        try:
            yield
        finally:
            self._leave()
            self._held.tf32 = None
            if outer is not None:
                self._enter(outer)

    def _enter(self, tf32: bool) -> None:
        wish = [tf32]
        with self._changed:
            self._waiting.append(wish)
            try:
                self._changed.wait_for(lambda: self._fits(wish))
            finally:
                self._waiting = [other for other in self._waiting if other is not wish]
                self._changed.notify_all()
            if self._inside == 0:
                self._tf32, self._found = tf32, _settings()
                _set((tf32, tf32, True, False))
            self._inside += 1
        self._held.tf32 = tf32

    def _fits(self, wish: list[bool]) -> bool:
        """Return whether it is the present setting, or there is none, and none was here earlier with another wish."""
        earlier = itertools.takewhile(lambda other: other is not wish, self._waiting)
        return (self._inside == 0 or self._tf32 == wish[0]) and all(other == wish for other in earlier)

    def _leave(self) -> None:
        with self._changed:
            self._inside -= 1
            if self._inside == 0 and self._found is not None:
                _set(self._found)
            self._changed.notify_all()


_SWITCH = _Switch()


@contextmanager
def arithmetic(on: torch.device, *, tf32: bool = False) -> Iterator[None]:
    """Compute what is inside in float32 proper, or on a GPU in TF32 where it is allowed; reproducibly in either case.

    Products of TF32 keep 10 bits of a mantissa: logits of ResNet-18 move by 3.5e-4 to 7e-3 of the largest. So training
    and searches may use it, verdicts and comparisons don't. cuDNN takes deterministic algorithms. On a CPU nothing
    happens. The settings are read when work is launched, so nothing has to wait for the device; when the last
    thread has left, they are restored.

    Args:
        on: where things are computed.
        tf32: whether products and convolutions of float32 numbers may use TF32.
    """
    if on.type != "cuda":
        yield
        return
    with _SWITCH.hold(tf32=tf32):
        yield


_Settings = tuple[bool, bool, bool, bool]
"""TF32 in products, TF32 in convolutions, deterministic algorithms, and choosing them by measuring."""

# The names that torch.compile reads as well, up to torch 2.13: mixed with the newer `fp32_precision` it fails.


def _settings() -> _Settings:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    return matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark


def _set(settings: _Settings) -> None:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = settings
