"""Databases that can't be written: full disks and other programs' locks, in one sentence."""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from sqlalchemy import create_engine

from generalist.errors import BadInput
from generalist.untrusted import with_timeout

_PATIENCE = 5.0  # seconds for a connection, or for other programs' transactions, which take far less
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ROOM = 65536  # bytes, at least
_HELD = "another program holds {which}: end that program, or wait for it, and run the same command again"
_NO_ROOM = (
    "{which} can't be written, as the disk is full or files may not grow: make room, and run the same command again"
)
_SIGNS = {
    "database is locked": _HELD,
    "database table is locked": _HELD,
    "database or disk is full": _NO_ROOM,
    "disk I/O error": _NO_ROOM,
    "attempt to write a readonly database": "{which} may not be written: make the file and its folder writable",
    "unable to open database file": "{which} can't be opened: make its folder writable, with room on its disk",
    "database disk image is malformed": "{which} is damaged: bring back a copy of it, or move it away",
}


def check_database(database: Path) -> None:
    """Refuse a SQLite database that can't be written; one that is not there is fine.

    Raises:
        BadInput: another program holds it, its disk is full, or it may not be written.
    """
    if not database.is_file() or not database.stat().st_size:
        return
    try:
        with closing(sqlite3.connect(database, timeout=_PATIENCE, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise BadInput(sentence(error, str(database)) or f"{database} can't be used: {error}") from None
    room = database.with_name(f".{database.name}.{os.getpid()}.room")
    try:
        with room.open("wb") as file:  # a transaction's journal lies beside it, too
            file.write(b"0" * _ROOM)
    except OSError as error:
        raise BadInput(_system_message(error, str(database)) or f"{room} can't be written ({error.strerror})") from None
    finally:
        room.unlink(missing_ok=True)


def connect_once(address: str) -> None:
    """Ask a database for a connection and give it back: others ask again and again, or wait for ever.

    Raises:
        TimeoutError: it doesn't answer in time.
        Exception: what SQLAlchemy or the driver raises.
    """

    def ask() -> None:
        engine = create_engine(address)
        try:
            engine.connect().close()
        finally:
            engine.dispose()

    with_timeout(_PATIENCE, ask)


def sentence(error: BaseException, which: str) -> str | None:
    """Return what a failure of a database comes to for people, however it was wrapped; None for any other failure.

    Args:
        error: with all that it came from.
        which: the database, as far as is known.
    """
    for cause in causes(error):
        if isinstance(cause, OSError) and (message := _system_message(cause, which)):
            return message
        if isinstance(cause, sqlite3.Error):
            for sign, template in _SIGNS.items():
                if sign in str(cause):
                    return template.format(which=which)
    return None


def _system_message(error: OSError, which: str) -> str | None:
    if error.errno not in _FULL:
        return None
    where = error.filename or which
    return f"{where} can't be written ({error.strerror}): make room on that disk, and run the same command again"


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, those it was raised from or beside, and what SQLAlchemy keeps of a driver's."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        cause = waiting.pop(0)
        if cause is None or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        waiting += [getattr(cause, "orig", None), cause.__cause__, cause.__context__]
