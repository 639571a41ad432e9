"""The processes that work on a search, started and watched."""

import os
import time
from collections.abc import Callable
from signal import Signals

from generalist.errors import BadInput
from pipelines.end_with_parent import Child
from pipelines.tuning.storage import STORAGE
from pipelines.workspace import Workspace

_ENDS_WITHIN = 5.0  # seconds
_GLANCE = 0.05


class LocalWorker(Child):
    """A worker on this machine."""

    _stopped = False

    def __init__(self, workspace: Workspace, name: str, address: str, number: int) -> None:
        log = workspace.work / "logs" / f"tuning-{number}.log"
        module = ["pipelines.tuning.worker", name]
        super().__init__(f"worker {number}", module, {**os.environ, STORAGE: address}, log)

    def poll(self) -> int | None:
        """Return its exit code, 0 where `end` stopped it; None while it works."""
        code = super().poll()
        return 0 if code is not None and self._stopped else code

    def end(self, *, ask: Signals | None = None, within: float | None = None) -> None:
        """Stop it at once: what it was at goes on from the store."""
        self._stopped = self._stopped or self.poll() is None
        super().end(ask=ask, within=within)


class WorkerPool:
    """So many workers, replaced where they die."""

    def __init__(self, start: Callable[[int], LocalWorker], count: int) -> None:
        self._start, self._count = start, count
        self._workers: list[LocalWorker] = []
        self._deaths = 0

    def keep(self) -> int:
        """Start what is missing; how many have died since the last look.

        Raises:
            BadInput: more have died than were to be there.
        """
        dead = [worker for worker in self._workers if worker.poll() not in (None, 0)]
        self._workers = [worker for worker in self._workers if worker.poll() is None]
        self._deaths += len(dead)
        if self._deaths > 2 * self._count:
            raise BadInput(f"workers die again and again; the last one's last words: {dead[-1].last_log_line()}")
        while len(self._workers) < self._count:
            self._workers.append(self._start(len(self._workers)))
        return len(dead)

    def finish(self) -> None:
        """Wait for their end, which is near when no trial is left."""
        until = time.monotonic() + _ENDS_WITHIN
        while any(worker.poll() is None for worker in self._workers) and time.monotonic() < until:
            time.sleep(_GLANCE)

    def end(self) -> None:
        """Stop all of them."""
        for worker in self._workers:
            worker.end()
