"""Locks by which processes of one project know of each other; a killed process's locks are free at once."""

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from filelock import FileLock, Timeout

from generalist.errors import BadInput


@contextmanager
def alone(folder: Path, name: str, who: str, does: str) -> Iterator[None]:
    """Be the only process that holds a lock.

    Args:
        folder: of the project's locks.
        name: the lock's.
        who: the holder, such as `training`; what it `does` makes a sentence of it, for a process that comes second.
        does: such as `is writing outputs/`.

    Raises:
        BadInput: another process holds it: which, and for how long.
    """
    # Beside the lock: opening a lock file may empty it, even while it is held.
    note = make_folder(folder) / f"{name}.pid"
    lock = FileLock(folder / f"{name}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise BadInput(_busy_message(who, does, note)) from None
    try:
        note.write_text(str(os.getpid()), encoding="ascii")
        yield
    finally:
        note.unlink(missing_ok=True)
        lock.release()


@contextmanager
def one_at_a_time(folder: Path, what: str) -> Iterator[None]:
    """Wait until no other process or thread does `what` by these locks, then do it."""
    with FileLock(make_folder(folder) / f"{what}.lock"):
        yield


@contextmanager
def tried(path: Path) -> Iterator[bool]:
    """Hold a lock inside unless another process or thread does; give whether it is held."""
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


class Alive:
    """A lock of this process's own: where it is free, its process has ended, which a process id does not tell.

    Attributes:
        path: that of a file whose name is new.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.path = make_folder(folder) / f"{kind}-{uuid.uuid4().hex}.lock"
        self._lock = FileLock(self.path, thread_local=False)  # any thread may close it
        self._lock.acquire()

    def close(self) -> None:
        """Give it back."""
        self._lock.release()
        self.path.unlink(missing_ok=True)


def busy(who: str, does: str, *, pid: int, seconds: float) -> str:
    """Return the sentence about a process that was faster."""
    lasting = timedelta(seconds=max(0, round(seconds)))
    return f"another {who} (process {pid}, for {lasting}) {does}; wait for it, or stop it with kill {pid}"


def _busy_message(who: str, does: str, note: Path) -> str:
    try:
        pid, since = int(note.read_text(encoding="ascii")), note.stat().st_mtime
    except (FileNotFoundError, ValueError):  # it has just begun, or is just ending
        return f"another {who} {does}; wait for it"
    return busy(who, does, pid=pid, seconds=time.time() - since)


def make_folder(folder: Path) -> Path:
    """Return a folder, which is there afterwards.

    Raises:
        BadInput: it can't be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{folder} can't be made ({error.strerror}): it must be a folder to write in") from None
    return folder
