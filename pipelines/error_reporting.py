"""Telling of a failure: what goes wrong with that never takes the place of what was to be told."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def telling() -> Iterator[None]:
    """Leave out other failures inside while one is being handled: a disk that is full is so for every teller.

    Where none is being handled, they come through.
    """
    failing = sys.exception() is not None
    try:
        yield
    except Exception:
        if not failing:
            raise
