"""A store that machines share: any address that fsspec opens, such as s3://bucket/store or a folder on a server."""

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import fsspec

from generalist.errors import BadInput


class Remote:
    """Files of the same names as in a local folder, which keeps copies of those that were used here.

    A file that was torn while it travelled is found by its checksum when it is read, as any damaged one.
    """

    def __init__(self, url: str) -> None:
        """Open an address.

        Raises:
            BadInput: nothing here can open it.
        """
        self.shown = re.sub(r"//[^/@]*@", "//…@", url)
        """The address without a password."""
        try:
            self._files, self._root = fsspec.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise BadInput(
                f"the store {self.shown} can't be opened ({error}): install what fsspec needs for it"
            ) from None

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
            half.replace(to)
        return True

    def send(self, name: PurePosixPath, path: Path) -> None:
        """Copy a file there."""
        with self._told():
            self._files.makedirs(self._files._parent(self._at(name)), exist_ok=True)
            self._files.put_file(str(path), self._at(name))

    def remove(self, name: PurePosixPath) -> None:
        """Delete a file there; it may be gone already."""
        with self._told():
            if self._files.exists(self._at(name)):
                self._files.rm_file(self._at(name))

    def names(self) -> Iterator[PurePosixPath]:
        """The files that are there."""
        with self._told():
            found = self._files.find(self._root) if self._files.exists(self._root) else []
        for path in found:
            yield PurePosixPath(path[len(self._root) :].lstrip("/"))

    def _at(self, name: PurePosixPath) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BadInput(
                f"the store {self.shown} doesn't answer ({error}): check its address and your access to it, or unset"
                " GENERALIST_STORE"
            ) from None
