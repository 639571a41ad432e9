"""A store that machines share: any address that fsspec opens, such as s3://bucket/store or a folder on a server."""

import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.archive import AbstractArchiveFileSystem

from generalist.atomic_files import rename
from generalist.errors import BadInput
from generalist.masking import masked, masked_address
from generalist.untrusted import printable, with_timeout

PATIENCE = 10.0
"""Seconds for the first answer of an address."""


class Remote:
    """Files of the same names as in a local folder, which keeps copies of those that were used here.

    A file that was torn while it travelled is found by its checksum when it is read, as any damaged one.
    """

    def __init__(self, url: str) -> None:
        """Open an address.

        Raises:
            BadInput: nothing here can open it, it does not answer in time, or it is no place to write to.
        """
        self._url, self.shown = url, printable(masked_address(url))
        """The address without a password."""
        with self._told("can't be opened", "install what fsspec needs for it, or "), _unraised():
            self._files, self._root = with_timeout(PATIENCE, lambda: _opened(url))

    def __contains__(self, name: PurePosixPath) -> bool:
        with self._told():
            return bool(self._files.exists(self._at(name)))

    def fetch(self, name: PurePosixPath, to: Path) -> bool:
        """Copy a file here; False where there is none. It is then there whole or not at all."""
        half = to.with_name(f".{to.name}.{uuid.uuid4().hex}")
        with self._told():
            try:
                to.parent.mkdir(parents=True, exist_ok=True)
                self._files.get_file(self._at(name), str(half))
            except FileNotFoundError:
                half.unlink(missing_ok=True)
                return False
            rename(half, to)
        return True

    def send(self, name: PurePosixPath, path: Path) -> None:
        """Copy a file there. Who reads there finds it whole or not at all, also where the file system is a folder."""
        place, half = self._at(name), self._at(name.with_name(f".{name.name}.{uuid.uuid4().hex}"))
        with self._told():
            self._files.makedirs(self._files._parent(place), exist_ok=True)
            try:
                self._files.put_file(str(path), half)
                self._files.mv(half, place)
            except BaseException:
                with suppress(Exception):
                    self._files.rm_file(half)
                raise

    def remove(self, name: PurePosixPath) -> None:
        """Delete a file there; it may be gone already."""
        with self._told():
            if self._files.exists(self._at(name)):
                self._files.rm_file(self._at(name))

    def names(self) -> Iterator[PurePosixPath]:
        """Yield the files that are there."""
        with self._told():
            paths = self._files.find(self._root) if self._files.exists(self._root) else []
        for path in paths:
            yield PurePosixPath(path[len(self._root) :].lstrip("/"))

    def _at(self, name: PurePosixPath) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    @contextmanager
    def _told(self, what: str = "doesn't answer", mend: str = "") -> Iterator[None]:
        try:
            yield
        except BadInput:
            raise
        except Exception as error:  # noqa: BLE001  each file system has its own
            raise BadInput(
                f"the store {self.shown} {what} ({_reason(error, self._url)}): {mend}check its address and your access"
                " to it, or unset GENERALIST_STORE"
            ) from None


def _opened(url: str) -> tuple[Any, str]:
    """Return the file system of an address that answers, and the store's place in it."""
    files, root = fsspec.url_to_fs(url)
    if isinstance(files, AbstractArchiveFileSystem):
        raise ValueError("an archive is no place for a store")
    with suppress(FileNotFoundError):  # the first state makes it
        files.ls(root, detail=False)
    return files, root


@contextmanager
def _unraised() -> Iterator[None]:
    """Silence what a half-made file system complains of when it goes: the reason is told anyhow."""
    before, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        yield
    finally:
        sys.unraisablehook = before


def _reason(error: Exception, url: str) -> str:
    """Return the reason in one line, without a password."""
    message = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    return printable(masked(" ".join(message.split()), of=url))[:200]
