"""Prefect's SQLite database: where it is, and how it is made whole or not at all."""

import os
from pathlib import Path

from filelock import FileLock

from generalist.writing import part_of, rename
from pipelines.databases import check_database

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

    A database whose first migration was stopped half-way might never open again, so it is made under another name.
    """
    database = home / "prefect.db"
    if database.exists() or os.environ.get(_DATABASE_URL):
        return
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / "prefect.db.lock"):
        if database.exists():  # another process was faster
            return
        with part_of(database) as making:
            _make(making)
            rename(making, database)


def _make(database: Path) -> None:
    import asyncio
    import sqlite3

    from prefect.server.database import provide_database_interface
    from prefect.server.database.configurations import AioSqliteConfiguration
    from prefect.server.database.dependencies import temporary_database_config
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, temporary_settings

    url = f"sqlite+aiosqlite:///{database}"
    with (
        temporary_settings({PREFECT_API_DATABASE_CONNECTION_URL: url}),
        temporary_database_config(AioSqliteConfiguration(connection_url=url)),
    ):
        asyncio.run(provide_database_interface().create_db())
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # everything into the one file that is renamed
    connection.close()
