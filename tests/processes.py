"""Other processes, for tests of what `kill -9` leaves behind."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

forking = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")  # the child has one


@contextmanager
def another_process(work: Callable[[], object]) -> Iterator[int]:
    """Start a process that works, and kill it with `kill -9`; forked, because imports would take it ten seconds."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another process does."""
    give_up = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)
