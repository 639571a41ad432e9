"""What a training tells while it runs."""

import threading
from collections.abc import Callable

from generalist.records import EpochRecord, GlobalRecord, RoundRecord

Fact = EpochRecord | GlobalRecord | RoundRecord
Tell = Callable[[Fact], None]


def ignore(_: object) -> None:
    """Listen to nothing."""


def identity(fact: Fact) -> tuple[str, int, str]:
    """Return what a fact is about; a step that is repeated tells it once more."""
    return type(fact).__name__, fact.epoch, getattr(fact, "expert", "")


class Facts:
    """The facts of a training so far; each is passed on once, whoever tells it again, from whichever thread."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._known: dict[tuple[str, int, str], Fact] = {}
        self._lock = threading.Lock()

    def __call__(self, fact: Fact) -> None:
        """Keep a fact, and pass it on if it is new."""
        with self._lock:
            if self._known.setdefault(identity(fact), fact) is fact:
                self._tell(fact)

    def all(self) -> list[Fact]:
        """Return all of them, in the order in which they were first told."""
        return list(self._known.values())
