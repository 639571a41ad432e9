"""TF32 and cuDNN's choice of algorithms: settings of the whole process, which threads take turns to need."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class _Switch:
    """Threads that want the same setting go side by side; one that wants another waits until they have left.

    A thread holds one setting at a time: an inner block puts the outer one down, so nobody waits in a circle.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tf32 = False
        self._inside = 0
        self._waiting = {False: 0, True: 0}
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
        with self._changed:
            self._waiting[tf32] += 1
            try:
                # A waiter for the other setting goes first, or two threads in turn could keep it out for good.
                self._changed.wait_for(
                    lambda: self._inside == 0 or (self._tf32 == tf32 and self._waiting[not tf32] == 0)
                )
            finally:
                self._waiting[tf32] -= 1
            if self._inside == 0:
                self._tf32 = tf32
                _set(tf32)
            self._inside += 1
        self._held.tf32 = tf32

    def _leave(self) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()


_SWITCH = _Switch()


@contextmanager
def arithmetic(on: torch.device, *, tf32: bool = False) -> Iterator[None]:
    """Compute what is inside in float32 proper, or on a GPU in TF32 where it is allowed; reproducibly in either case.

    Products of TF32 keep 10 bits of a mantissa: logits of ResNet-18 move by 3.5e-4 to 7e-3 of the largest. So training
    and searches may use it, verdicts and comparisons don't. cuDNN takes deterministic algorithms. On a CPU nothing
    happens. The settings are read when work is launched, so nothing has to wait for the device.

    Args:
        on: where things are computed.
        tf32: whether products and convolutions of float32 numbers may use TF32.
    """
    if on.type != "cuda":
        yield
        return
    with _SWITCH.hold(tf32=tf32):
        yield


def _set(tf32: bool) -> None:
    # The names that torch.compile reads as well, up to torch 2.13: mixed with the newer `fp32_precision` it fails.
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
