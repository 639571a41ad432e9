"""Content-addressed states: one file per key, which has one content, whoever writes it."""

import logging
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from torch import Tensor

from generalist.errors import BadInput
from generalist.store.files import Stored, read_facts, read_tensors, write_tensors
from generalist.store.remote import Remote

_SUFFIX = ".safetensors"
_ASIDE = ".damaged"
_MEND = "the next run computes it again"
_LONGEST_KIND = 40


class StateLost(BadInput):
    """A state that was in the store can't be had any more; whoever starts over finds it missing and computes it."""


@dataclass(frozen=True)
class Entry:
    """A file of the store, as a list shows it.

    Attributes:
        name: below the store's folder, such as `ab/abcd….safetensors`.
        path: where it lies on this machine; None if only the shared store has it.
        bytes: its size; 0 where only the shared store has it.
        used: when it was last written or read here, in seconds since 1970.
        kind: what it holds, such as `trajectory`; `damaged`, or `left over` from a writer that was killed.
        facts: what it says of itself.
    """

    name: PurePosixPath
    path: Path | None
    bytes: int
    used: float
    kind: str
    facts: Mapping[str, Any]

    @property
    def key(self) -> str:
        """The key of a state."""
        return self.name.name.removesuffix(_ASIDE).removesuffix(_SUFFIX)


class Store:
    """A folder of states under their keys. Several processes may write to it at once: a key has one content."""

    def __init__(self, folder: Path, remote: Remote | None = None) -> None:
        """Open the store; `remote` is one that machines share, and `folder` then holds copies of what was used here."""
        self.folder, self.remote = folder, remote

    def path(self, key: str) -> Path:
        """Return where the state of a key lies on this machine."""
        return self.folder / _name(key)

    def __contains__(self, key: str) -> bool:
        return self.path(key).is_file() or (self.remote is not None and _name(key) in self.remote)

    def save(self, key: str, kind: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Write a state; it is there whole or not at all. `kind` is for people who look at lists.

        Raises:
            BadInput: the folder can't be written, or a shared store doesn't answer.
        """
        write_tensors(self.path(key), tensors, {**facts, "kind": kind, "key": key})
        if self.remote is not None:
            self.remote.send(_name(key), self.path(key))

    def load(self, key: str, *, touch: bool = True) -> Stored:
        """Read a state and compare its checksum and its key. A damaged file is set aside: its state is computed again.

        With `touch` it counts as used.

        Raises:
            StateLost: the file is missing, truncated, altered, or the state of another key.
        """
        path = self.path(key)
        if not path.is_file() and self.remote is not None:
            self.remote.fetch(_name(key), path)
        try:
            stored = read_tensors(path, mend=_MEND)
            if not isinstance(stored.facts.get("kind"), str):  # which `save` writes
                raise BadInput(f"the state file {path} is damaged (it tells no kind): {_MEND}")
            if stored.facts.get("key") != key:
                raise BadInput(f"the state file {path} is damaged (it holds the state of another key): {_MEND}")
        except BadInput as error:
            self._set_aside(key)
            raise StateLost(str(error)) from None
        if touch:
            os.utime(path)
        return stored

    @contextmanager
    def understood(self, key: str) -> Iterator[None]:
        """Set content aside that the block can't make sense of: that is damage, too, whatever its checksum says.

        Raises:
            StateLost: that happened.
        """
        try:
            yield
        except BadInput:
            raise
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
            self._set_aside(key)
            raise StateLost(
                f"the state file {self.path(key)} is damaged (it does not hold what it should): {_MEND}"
            ) from None

    def verify_all(self) -> tuple[int, list[StateLost]]:
        """Read every state that lies here and set aside the damaged ones; how many are whole, and what was lost."""
        lost: list[StateLost] = []
        states = [entry for entry in self.entries() if entry.path is not None and entry.name.suffix == _SUFFIX]
        named = [entry for entry in states if not entry.name.name.startswith(".")]
        for entry in named:
            try:
                self.load(entry.key, touch=False)
            except StateLost as error:
                lost.append(error)
        return len(named) - len(lost), lost

    def discard(self, key: str) -> None:
        """Delete a state that nobody needs any more; it may be gone already."""
        self.path(key).unlink(missing_ok=True)
        if self.remote is not None:
            self.remote.remove(_name(key))

    def entries(self) -> Iterator[Entry]:
        """Yield all files, in the order of their names."""
        local_paths = {PurePosixPath(path.relative_to(self.folder)): path for path in self._files()}
        remote_names = set(self.remote.names()) if self.remote is not None else set()
        for name in sorted({*local_paths, *remote_names}):
            path = local_paths.get(name)
            if path is None:
                yield Entry(name, None, 0, 0.0, "elsewhere", {})
                continue
            try:
                about = path.stat()
            except FileNotFoundError:  # its writer has just finished or removed it
                continue
            kind, facts = _described(path)
            yield Entry(name, path, about.st_size, about.st_mtime, kind, facts)

    def remove(self, entry: Entry) -> None:
        """Delete a file, wherever it is."""
        if entry.path is not None:
            entry.path.unlink(missing_ok=True)
        if self.remote is not None:
            self.remote.remove(entry.name)

    def _files(self) -> Iterator[Path]:
        """Yield our files alone: two letters of the key, then its name."""
        return (path for path in self.folder.glob("??/*") if path.is_file() and _SUFFIX in path.name)

    def _set_aside(self, key: str) -> None:
        set_aside(self.path(key))
        if self.remote is not None:
            self.remote.remove(_name(key))


def set_aside(path: Path) -> None:
    """Move a damaged file out of the way, but keep it: people may want to know what happened."""
    with suppress(FileNotFoundError):  # it is missing, or another process was faster
        aside = path.with_name(path.name + _ASIDE)
        if path.is_dir() or aside.is_dir():  # neither takes the other's place
            aside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{_ASIDE}")
        path.replace(aside)
        logging.getLogger("generalist").warning("a damaged state was set aside as %s", aside)


def _name(key: str) -> PurePosixPath:
    return PurePosixPath(key[:2], key + _SUFFIX)


def _described(path: Path) -> tuple[str, Mapping[str, Any]]:
    if path.name.endswith(_ASIDE):
        return "damaged", {}
    if not path.name.endswith(_SUFFIX) or path.name.startswith("."):
        return "left over", {}
    try:
        facts = read_facts(path)
    except BadInput:
        return "damaged", {}
    kind = facts.get("kind")
    return (kind, facts) if isinstance(kind, str) and len(kind) <= _LONGEST_KIND else ("damaged", {})
