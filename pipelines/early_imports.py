"""Imports that take seconds, made without looking for garbage."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Import inside without Python's search for garbage: modules stay, and looking through them takes time."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
