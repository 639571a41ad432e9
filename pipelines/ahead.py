"""Imports that take seconds: made while something else has to be waited for, and without looking for garbage."""

import gc
import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def imported(*modules: str, after: float) -> Iterator[None]:
    """Import beside the block what the code after it needs; `after` some seconds, unless it ends before."""
    ends = threading.Event()
    thread = threading.Thread(target=_patiently, args=(ends, after, *modules), daemon=True)
    thread.start()
    yield
    ends.set()
    thread.join()


@contextmanager
def uncollected() -> Iterator[None]:
    """Import inside without Python's search for garbage: modules stay, and looking through them takes time."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def import_all(*modules: str) -> None:
    """Import modules; one that can't be imported says so where it is needed."""
    for name in modules:
        with suppress(Exception):
            importlib.import_module(name)


def _patiently(ends: threading.Event, after: float, *modules: str) -> None:
    ends.wait(after)
    import_all(*modules)
