"""Prefect's SQLite database: where it is, and how it is made whole or not at all."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from filelock import FileLock

from generalist.atomic_files import partial_name, rename
from generalist.errors import BadInput
from pipelines.database_errors import check_database
from pipelines.end_with_parent import Child

_DATABASE_URL = "PREFECT_API_DATABASE_CONNECTION_URL"


def home() -> Path:
    """Return where Prefect keeps its database, by its own settings."""
    import prefect.settings

    return prefect.settings.get_current_settings().home


def check(home: Path) -> None:
    """Refuse Prefect's SQLite database in `home` where it can't be written; another one is none of ours.

    Raises:
        BadInput: as `check_database`.
    """
    if not os.environ.get(_DATABASE_URL):
        check_database(home / "prefect.db")


def migrate(home: Path) -> None:
    """Make Prefect's SQLite database in `home` where there is none: whole or not at all, which takes some seconds.

    A database whose first migration was stopped half-way might never open again, so it is made under another name. One
    that another version of Prefect made is brought up to date by its server.

    Raises:
        BadInput: it can't be made.
    """
    database = home / "prefect.db"
    if database.exists() or os.environ.get(_DATABASE_URL):
        return
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / "prefect.db.lock"):
        if database.exists():  # another process was faster
            return
        with partial_name(database) as making:
            _make(making)
            rename(making, database)


def _make(database: Path) -> None:
    """Let Prefect's own command make a database; it ends with this process, however that ends."""
    environment = os.environ | {_DATABASE_URL: f"sqlite+aiosqlite:///{database}"}
    command = Child("Prefect", ["prefect", "server", "database", "upgrade", "--yes"], environment)
    try:
        code = command.wait()
    finally:
        command.end(ask=None)
    if code:
        raise BadInput(
            f"Prefect's database can't be made in {database.parent} (its command ended with code {code}, and said why"
            " above): make that folder writable, with room on its disk"
        )
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # everything into the one file that is renamed
