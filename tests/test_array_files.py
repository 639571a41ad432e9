"""Arrays from files that anybody may have made: a value, or one sentence, and never a long wait."""

import io
import os
import struct
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from generalist.data.array_files import UnreadableArray, map_npy, read_npz
from generalist.errors import BadInput

ARRAYS: dict[str, NDArray[Any]] = {
    "columns": np.arange(6.0).reshape(2, 3).T,
    "big endian": np.arange(3, dtype=">f4"),
    "text": np.array("hä"),
    "no letters": np.array(["", "", ""], dtype=np.str_),
    "none": np.zeros((0, 3)),
    "bools": np.asfortranarray(np.array([[True, False, False], [False, True, True]])),
    "halves": np.zeros((2, 2), dtype=np.float16),
    "number": np.array(3),
}


def header(shape: str, descr: str = "'<f4'", version: bytes = b"\x01\x00") -> bytes:
    """Return the start of a `.npy` file."""
    told = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode("latin1")
    return b"\x93NUMPY" + version + struct.pack("<H" if version[0] == 1 else "<I", len(told)) + told


def zipped(path: Path, **members: bytes) -> Path:
    """Write a deflated zip file."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes_is_read(save: Callable[..., None], tmp_path: Path) -> None:
    """All kinds, in the machine's byte order."""
    save(tmp_path / "a.npz", **ARRAYS)
    found = read_npz(tmp_path / "a.npz", list(ARRAYS))
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype.newbyteorder("="))
    assert set(read_npz(tmp_path / "a.npz", ["text"], optional=["number", "nobody"])) == {"text", "number"}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=list(ARRAYS))
def test_a_single_array_is_read(array: NDArray[Any], tmp_path: Path) -> None:
    """From `.npy`, and from its second version; in a zip file as well."""
    for version in ((1, 0), (2, 0)):
        with (tmp_path / "a.npy").open("wb") as file:
            np.lib.format.write_array(file, array, version=version)
        if array.nbytes:
            np.testing.assert_array_equal(map_npy(tmp_path / "a.npy"), array)
        found = read_npz(zipped(tmp_path / "a.npz", a=(tmp_path / "a.npy").read_bytes()), ["a"])
        np.testing.assert_array_equal(found["a"], array)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (header("(1000000000000,)"), "more than"),
        (header("(10000000000, 10000000000)"), "more than"),
        (header("(0, 100000000000000000000)"), "more than"),
        (header("(1000000000000000,)", "'<U0'"), "more than"),
        (header("(3, -1)"), "shape"),
        (header("(True,)"), "shape"),
        (header("3"), "can't be read"),
        (header("(1,)", "'|O'") + bytes(8), "neither numbers nor text"),
        (header("(1,)", "[('a', '<f4')]") + bytes(4), "neither numbers nor text"),
        (header("(1,)", "'<M8[s]'") + bytes(8), "neither numbers nor text"),
        (header("(1,)", "'<U999999999'"), "cut short|more than|not as long|can't be read"),
        (header("(" * 3000), "can't be read"),
        (header("(" + "1" * 6000 + ",)"), "can't be read"),
        (header("(4,)") + bytes(3), "not as long"),
        (header("(1,)") + bytes(8), "not as long"),
        (header("(1,)", version=b"\x09\x00") + bytes(4), "can't be read"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(100), "can't be read"),
        (b"", "can't be read"),
    ],
    ids=range(18),
)
def test_what_is_no_array_is_refused(content: bytes, told: str, tmp_path: Path) -> None:
    """By its header, before anything is read; alone and in a zip file."""
    (tmp_path / "a.npy").write_bytes(content)
    began = time.monotonic()
    with pytest.raises(BadInput, match=told):
        map_npy(tmp_path / "a.npy")
    with pytest.raises(BadInput, match=told):
        read_npz(zipped(tmp_path / "a.npz", a=content), ["a"])
    assert time.monotonic() - began < 2


def test_text_of_no_letters_of_unicode_is_refused(tmp_path: Path) -> None:
    """It would fail wherever it is shown."""
    with pytest.raises(UnreadableArray, match="text"):
        read_npz(zipped(tmp_path / "a.npz", a=header("(1,)", "'<U1'") + b"\xff\xff\xff\xff"), ["a"])


def test_a_bomb_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """A megabyte that becomes a gigabyte; and many arrays that are too much together."""
    path = zipped(tmp_path / "a.npz", a=header("(25000000,)") + bytes(100_000_000))
    with pytest.raises(UnreadableArray, match="more than 90000000 bytes"):
        read_npz(path, ["a"], limit=90_000_000)
    assert len(read_npz(path, ["a"])["a"]) == 25_000_000
    np.savez(tmp_path / "b.npz", a=np.zeros(600), b=np.zeros(600))
    with pytest.raises(UnreadableArray, match="more than"):
        read_npz(tmp_path / "b.npz", ["a", "b"], limit=8_000)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda content: content.replace(b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00"), "encrypted"),
        (lambda content: content.replace(b"\x14\x00\x00\x00\x08\x00", b"\x14\x00\x00\x00\x0c\x00"), "compressed in a way"),
        (lambda content: content.replace(b"\x14\x00\x00\x00\x08\x00", b"\x14\x00\x00\x00\x63\x00"), "compressed in a way"),
        (lambda content: content[:-30], "no .npz"),
    ],
    ids=["encrypted", "bzip2", "unknown", "cut"],
)  # fmt: skip
def test_zip_files_of_other_kinds_are_refused(change: Callable[[bytes], bytes], told: str, tmp_path: Path) -> None:
    """In one sentence."""
    path = zipped(tmp_path / "a.npz", a=header("(1,)") + bytes(4))
    before = path.read_bytes()
    path.write_bytes(change(before))
    assert path.read_bytes() != before
    with pytest.raises(UnreadableArray, match=told):
        read_npz(path, ["a"])


def test_a_name_twice_or_not_at_all_is_refused(tmp_path: Path) -> None:
    """Nobody knows which one is meant."""
    path = zipped(tmp_path / "a.npz", a=header("(1,)") + bytes(4))
    with pytest.raises(UnreadableArray, match="no array b"):
        read_npz(path, ["b"])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("a", header("(1,)") + bytes(4))
    with pytest.raises(UnreadableArray, match="twice"):
        read_npz(path, ["a"])


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.mkdir()])
def test_only_regular_files_are_opened(make: Callable[[Path], None], tmp_path: Path) -> None:
    """A FIFO would keep us waiting; and a missing file is for the caller to tell."""
    make(tmp_path / "a")
    for read in (map_npy, lambda path: read_npz(path, ["a"])):
        with pytest.raises(UnreadableArray, match="not a regular file"):
            read(tmp_path / "a")
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "missing")


def _valid() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, a=np.arange(40.0).reshape(5, 8), b=np.array(["x", "yz"]), c=np.array([True, False]))
    return buffer.getvalue()


VALID = _valid()
_single = io.BytesIO()
np.save(_single, np.arange(12.0).reshape(3, 4))
SINGLE = _single.getvalue()


@settings(max_examples=400, deadline=timedelta(seconds=5))
@given(
    flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=6),
    cut=st.one_of(st.none(), st.integers(0, len(VALID))),
    middle=st.binary(max_size=40),
    at=st.integers(0, len(VALID)),
    member=st.one_of(st.none(), st.binary(max_size=200), st.integers(0, len(SINGLE)).map(lambda at: SINGLE[:at])),
)
def test_damaged_files_give_a_value_or_a_sentence(
    flips: list[tuple[int, int]],
    cut: int | None,
    middle: bytes,
    at: int,
    member: bytes | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Flipped bytes, cuts, insertions, and members of any bytes."""
    folder = tmp_path_factory.mktemp("fuzz")
    for valid in (VALID, SINGLE):
        content = bytearray(valid[:at] + middle + valid[at:])
        for place, byte in flips:
            content[place % len(content)] ^= byte
        path = folder / "a"
        path.write_bytes(content[:cut])
        for read in (lambda path: read_npz(path, ["a"], optional=["b", "c"]), map_npy):
            with suppress(BadInput):
                read(path)
    if member is not None:
        with suppress(BadInput):
            read_npz(zipped(folder / "b.npz", a=member), ["a"])
