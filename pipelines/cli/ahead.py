"""Imports for later, made while something else has to be waited for."""

import importlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_LAST = 19  # of the priorities of threads: only where a core has nothing else to do


@contextmanager
def imported(*modules: str) -> Iterator[None]:
    """Beside the block, import what the code after it needs."""
    thread = threading.Thread(target=_patiently, args=modules, daemon=True)
    thread.start()
    yield
    thread.join()


def import_all(*modules: str) -> None:
    """Import modules; one that can't be imported says so where it is needed."""
    for name in modules:
        with suppress(Exception):
            importlib.import_module(name)


def _patiently(*modules: str) -> None:
    with suppress(OSError, AttributeError):  # not every system has a priority for each thread
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LAST)
    import_all(*modules)
