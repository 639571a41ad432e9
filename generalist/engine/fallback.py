"""What fast paths have in common that are tried beside the plain one: one at a time, with a warning where they fail."""

import functools
import logging
import threading

ALONE = threading.RLock()
"""Held while a graph is captured or something is compiled. torch captures one graph at a time in a process, and to
compile for a GPU means to measure there, which waits for the whole device and would break a capture."""


@functools.cache
def warn_once(sentence: str) -> None:
    """Warn once in a process, however many experts and rounds meet the same."""
    logging.getLogger("generalist").warning(sentence)


def first_line_of(error: Exception) -> str:
    """Return an error's kind and its first line: compilers add pages."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
