"""The processes that work on a search, started and watched."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol

from generalist.errors import BadInput
from generalist.masking import masked
from pipelines.tuning.storage import STORAGE
from pipelines.workspace import Workspace

_ENDS_WITHIN = 5.0  # seconds
_GLANCE = 0.05


class Hand(Protocol):
    """One worker."""

    def poll(self) -> int | None:
        """Return its exit code, 0 where `end` stopped it; None while it works."""

    def end(self) -> None:
        """Stop it; what it was at goes on from the store."""

    def last_words(self) -> str:
        """Return the last line it wrote."""


class Process:
    """A worker in a process of its own on this machine, which ends with ours."""

    _stopped = False

    def __init__(self, workspace: Workspace, name: str, address: str, number: int) -> None:
        self._log = workspace.work / "logs" / f"tuning-{number}.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  ourselves
                [sys.executable, "-m", "pipelines.tuning.worker", name],
                env={**os.environ, STORAGE: address},
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us, and we end it
            )

    def poll(self) -> int | None:
        code = self._process.poll()
        return 0 if code is not None and self._stopped else code

    def end(self) -> None:
        if self._process.poll() is None:
            self._stopped = True
            self._process.kill()
        self._process.wait(_ENDS_WITHIN)

    def last_words(self) -> str:
        return last_line(self._log)


def last_line(log: Path) -> str:
    """Return the last line of a file that says something, without passwords."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return masked(next((line.strip() for line in reversed(lines) if line.strip()), "nothing"))


class Hands:
    """So many workers, replaced where they die.

    Raises:
        BadInput: they die again and again.
    """

    def __init__(self, start: "Start", count: int) -> None:
        self._start, self._count = start, count
        self._hands: list[Hand] = []
        self._deaths = 0

    def keep(self) -> int:
        """Start what is missing; how many have died since the last look.

        Raises:
            BadInput: more have died than were to be there.
        """
        dead = [hand for hand in self._hands if hand.poll() not in (None, 0)]
        self._hands = [hand for hand in self._hands if hand.poll() is None]
        self._deaths += len(dead)
        if self._deaths > 2 * self._count:
            raise BadInput(f"workers die again and again; the last one's last words: {dead[-1].last_words()}")
        while len(self._hands) < self._count:
            self._hands.append(self._start(len(self._hands)))
        return len(dead)

    def finish(self) -> None:
        """Wait for their end, which is near when no trial is left."""
        until = time.monotonic() + _ENDS_WITHIN
        while any(hand.poll() is None for hand in self._hands) and time.monotonic() < until:
            time.sleep(_GLANCE)

    def end(self) -> None:
        """Stop all of them."""
        for hand in self._hands:
            hand.end()


class Start(Protocol):
    """Starts a worker."""

    def __call__(self, number: int, /) -> Hand: ...
