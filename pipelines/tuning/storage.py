"""Where a search is remembered: a journal file on this machine, or a database that machines share."""

import os
from pathlib import Path

import optuna
from filelock import FileLock
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from generalist.errors import BadInput
from generalist.masking import masked, masked_address
from pipelines.database_errors import connect_once
from pipelines.workspace import Workspace

STORAGE = "GENERALIST_TUNING"
"""Environment variable: the journal's path, or the address of a database; addresses may hold passwords."""

_DRIVER = "postgresql+psycopg"


def address_of(workspace: Workspace, given: str | None) -> str:
    """Return where searches are remembered: as given, or as the environment says, or in the project's own journal."""
    named = (given or os.environ.get(STORAGE, "")).strip()
    if not named:
        return str(workspace.work / "tuning" / "journal.log")
    return named if "://" in named else str((workspace.root / Path(named).expanduser()).resolve())


def open_storage(address: str) -> BaseStorage:
    """Return the storage at an address.

    Raises:
        BadInput: it can't be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return _database(address) if "://" in address else _journal(Path(address))


def close(storage: BaseStorage) -> None:
    """Give back the connections of a database."""
    storage.remove_session()
    if isinstance(storage, RDBStorage):
        storage.engine.dispose()


def shown(address: str) -> str:
    """Return an address without its password."""
    return masked_address(address) if "://" in address else address


def _journal(path: Path) -> BaseStorage:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(path), lock_obj=_JournalLock(path)))
    except OSError as error:
        raise BadInput(f"the journal {path} can't be opened ({error.strerror}): name another by {STORAGE}") from None
    except ValueError:
        raise BadInput(f"{path} is no journal of Optuna, or is damaged: name another by {STORAGE}") from None


def _database(address: str) -> BaseStorage:
    try:
        url = make_url(address)
        if url.drivername in ("postgres", "postgresql"):
            url = url.set(drivername=_DRIVER)
        whole = url.render_as_string(hide_password=False)
        connect_once(whole)
        return RDBStorage(whole)
    except (ArgumentError, NoSuchModuleError):
        raise BadInput(f"{STORAGE} is no address of a database, such as postgresql://host/name") from None
    except ImportError:
        raise BadInput("PostgreSQL needs its driver: pip install 'generalist[postgres]'") from None
    except TimeoutError as error:
        raise BadInput(f"the database at {shown(address)} can't be used: {error.strerror}") from None
    except SQLAlchemyError as error:
        what = str(getattr(error, "orig", error)).strip().partition("\n")[0]
        raise BadInput(f"the database at {shown(address)} can't be used: {masked(what, of=address)}") from None


class _JournalLock(JournalFileOpenLock):
    """A lock that goes with its process, where Optuna's own would stay for half a minute after a `kill -9`.

    Whoever has it first drops what a killed writer left of a line: the next line would be glued to it.
    """

    def __init__(self, journal: Path) -> None:
        super().__init__(str(journal))
        self._journal, self._own = journal, FileLock(f"{journal}.own.lock")

    def acquire(self) -> bool:
        self._own.acquire()
        with self._journal.open("rb+") as file:
            size = file.seek(0, os.SEEK_END)
            if size and not _ends_a_line(file.fileno(), size):
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        self._own.release()


def _ends_a_line(descriptor: int, size: int) -> bool:
    return os.pread(descriptor, 1, size - 1) == b"\n"
