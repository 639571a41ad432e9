"""Arrays from `.npy` and `.npz` files that anybody may have made: bounded before they are read, never unpickled.

The limits: regular files only; a header of 10,000 characters at most, checked before it is parsed; an array, and all
arrays asked for together, of `LIMIT` bytes or half of this machine's memory at most, and as many numbers at most,
whatever shape the header tells; 1,000 members in a zip file, stored or deflated, unencrypted, each name once, each as
long as its header says; booleans, integers, floats and text, no objects and no records.
"""

import io
import math
import os
import warnings
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from generalist.errors import BadInput
from generalist.untrusted import open_regular

LIMIT = 8 * 2**30
"""Bytes of arrays, at most."""
_HEADER, _MEMBERS = 10_000, 1_000
_ENCRYPTED = 1  # a bit of a zip member's flags


class UnreadableArray(BadInput):
    """A file that holds no such arrays; `reason` says why, for a sentence that also says how to mend it."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} can't be read ({reason}): write it again with numpy")
        self.reason = reason


def map_npy(path: Path) -> NDArray[Any]:
    """Return the array of a `.npy` file, memory-mapped: as large as the file, however large that is.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableArray: it holds no array, or another number of bytes than its header tells.
    """
    with _readable(path) as file:
        size = os.fstat(file.fileno()).st_size
        header = _header(file, size)
        if header.length + header.nbytes != size:
            raise _RefusedError("it is not as long as its header tells")
        if not header.nbytes:
            raise _RefusedError("it holds nothing")
        order: Literal["C", "F"] = "F" if header.fortran else "C"
        return np.memmap(path, header.dtype, "r", header.length, header.shape, order)


def read_npz(
    path: Path, names: Collection[str], *, optional: Collection[str] = (), prefix: str | None = None, limit: int = LIMIT
) -> dict[str, NDArray[Any]]:
    """Return some arrays of an `.npz` file, in the machine's byte order; others in it are not looked at.

    Args:
        path: the file.
        names: the arrays that it must have.
        optional: those that are read where it has them.
        prefix: also read those whose names begin so.
        limit: bytes of all of them together.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableArray: it is no zip file, lacks an array, or holds one that is not within the limits.
    """
    arrays: dict[str, NDArray[Any]] = {}
    limit = _most(limit)
    with _readable(path) as file, zipfile.ZipFile(file) as archive:
        members = _members(archive)
        missing = sorted(set(names) - members.keys())
        if missing:
            raise _RefusedError(f"it has no array {missing[0]}")
        also = {name for name in members if prefix is not None and name.startswith(prefix)}
        for name in sorted({*names, *optional, *also} & members.keys()):
            arrays[name] = _member(archive, members[name], limit)
            limit -= arrays[name].nbytes
    return arrays


class _RefusedError(Exception):
    """Why a file is refused."""


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    length: int
    """Bytes, itself included."""

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@contextmanager
def _readable(path: Path) -> Iterator[BufferedReader]:
    """Open a file; whatever shows that it is damaged is raised as `UnreadableArray`."""
    try:
        with open_regular(path) as file:
            yield file
    except FileNotFoundError:
        raise
    except _RefusedError as error:
        raise UnreadableArray(path, str(error)) from None
    except OSError as error:
        raise UnreadableArray(path, error.strerror or "it can't be opened") from None
    except MemoryError:
        raise UnreadableArray(path, "it takes more memory than there is") from None
    # what damaged zip files make zipfile raise, see its source
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError):
        raise UnreadableArray(path, "it is no .npz or .npy file, or is damaged") from None


def _most(limit: int) -> int:
    """Return the bytes of arrays, at most: reading them takes as much again."""
    return min(limit, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the members by the names of their arrays."""
    if len(archive.infolist()) > _MEMBERS:
        raise _RefusedError(f"it has more than {_MEMBERS} members")
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name in members:
            raise _RefusedError(f"it has {name[:40]!r} twice")
        members[name] = info
    return members


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> NDArray[Any]:
    name = repr(info.filename[:40])
    if info.flag_bits & _ENCRYPTED:
        raise _RefusedError(f"{name} is encrypted")
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise _RefusedError(f"{name} is compressed in a way that numpy doesn't write")
    with archive.open(info) as file:
        header = _header(file, limit)
        if info.file_size != header.length + header.nbytes:
            raise _RefusedError(f"{name} is not as long as its header tells")
        array = _array(file, header)
        if file.read(1):  # at the end its checksum is compared
            raise _RefusedError(f"{name} is not as long as its header tells")
    return array


def _header(file: Any, limit: int) -> _Header:
    """Return the header of an array, of a file or a member of a zip file."""
    start = io.BytesIO(file.read(_HEADER))
    try:
        with warnings.catch_warnings(action="ignore"):  # of Python's, about how the text is written
            shape, fortran, dtype = _READERS[np.lib.format.read_magic(start)](start)
    except Exception:  # noqa: BLE001  what is no header makes numpy's reader, and Python's parser, raise almost anything
        raise _RefusedError("an array's header can't be read") from None
    if dtype.kind not in "biufU":
        raise _RefusedError(f"an array is of {str(dtype)[:40]!r}, neither numbers nor text")
    if len(shape) > 32 or not all(type(n) is int and n >= 0 for n in shape):
        raise _RefusedError("an array's shape is none")
    if math.prod(max(n, 1) for n in shape) * max(dtype.itemsize, 1) > limit:
        raise _RefusedError(f"an array of shape {str(list(shape))[:80]} has more than {limit} bytes")
    return _Header(shape, fortran, dtype, start.tell())


_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
"""By version; 3.0 is for names of records."""


def _array(file: Any, header: _Header) -> NDArray[Any]:
    """Return the numbers of an array."""
    file.seek(0)
    with warnings.catch_warnings(action="ignore"):
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    if header.dtype.kind == "b":  # any byte but 0 is true
        array = array.view(np.uint8).astype(bool)
    if header.dtype.kind == "U":
        _checked_text(array)
    return np.ascontiguousarray(array, dtype=header.dtype.newbyteorder("=")).reshape(header.shape)


def _checked_text(array: NDArray[Any]) -> None:
    """Let pass text that numpy can turn into strings."""
    codes = np.ascontiguousarray(array).reshape(-1).view(np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
    if codes.size and (codes.max() > 0x10FFFF or ((codes >= 0xD800) & (codes <= 0xDFFF)).any()):
        raise _RefusedError("an array's text is none")
