"""Telling of a failure: what goes wrong with that never takes the place of what was to be told."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def telling() -> Iterator[None]:
    """Inside, while an exception is being handled, others are left out: a disk that is full is so for every teller.

    Where none is being handled, they come through.
    """
    failing = sys.exception() is not None
    try:
        yield
    except Exception:
        if not failing:
            raise
