"""Prepared data as somebody edits it: with digests that agree, as another tool would write them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from generalist.config import digest
from generalist.data.manifest import ARRAYS, MANIFEST, digest_of_content, digest_of_test
from generalist.untrusted import file_sha256

Manifest = dict[str, Any]


def reseal(folder: Path, change: Callable[[Manifest], object] = lambda _: None) -> None:
    """Change the manifest of a folder and make all its digests agree with what lies there."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    manifest["files"] = {name: file_sha256(folder / name) for name in ARRAYS}
    change(manifest)
    names, files = tuple(manifest["class_names"]), manifest["files"]
    shape, mean, std = (tuple(manifest[name]) for name in ("shape", "mean", "std"))
    manifest["request_digest"] = digest(manifest["request"])
    manifest["test_digest"] = digest_of_test(files, names)
    manifest["digest"] = digest_of_content(files, names, shape, mean, std)
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def saved(folder: Path, name: str, change: Callable[[Any], Any]) -> None:
    """Another array in place of one, which the manifest agrees with."""
    array = np.load(folder / name)
    with (folder / name).open("wb") as file:
        np.save(file, change(array), allow_pickle=True)
    reseal(folder)


def put(folder: Path, name: str, content: bytes) -> None:
    """Other bytes in place of an array, which the manifest agrees with."""
    (folder / name).write_bytes(content)
    reseal(folder)


def _npz(folder: Path) -> None:
    array = np.load(folder / "train_images.npy")
    with (folder / "train_images.npy").open("wb") as file:
        np.savez(file, images=array)
    reseal(folder)


def _emptied(folder: Path, split: str) -> None:
    saved(folder, f"{split}_images.npy", lambda array: array[:0])
    saved(folder, f"{split}_labels.npy", lambda array: array[:0])


def _object(array: Any) -> Any:
    return np.array([*array.tolist(), "label"], dtype=object)[:-1]


ARRAYS_EDITED: dict[str, tuple[Callable[[Path], None], str]] = {
    "label beyond": (lambda at: saved(at, "train_labels.npy", lambda own: own + 5), "labels from 5 to 14, and there"),
    "label below": (lambda at: saved(at, "test_labels.npy", lambda own: own - 1), "labels from -1"),
    "label int32": (lambda at: saved(at, "train_labels.npy", lambda own: own.astype("i4")), "is int32"),
    "label big endian": (lambda at: saved(at, "train_labels.npy", lambda own: own.astype(">i8")), "is >i8"),
    "label float": (lambda at: saved(at, "test_labels.npy", lambda own: own / 2), "is float64"),
    "labels of objects": (lambda at: saved(at, "train_labels.npy", _object), "neither numbers nor text"),
    "labels short": (lambda at: saved(at, "train_labels.npy", lambda own: own[:-1]), "expected int64"),
    "labels one-hot": (lambda at: saved(at, "test_labels.npy", lambda own: np.eye(10, dtype="i8")[own]), "expected"),
    "images float": (lambda at: saved(at, "train_images.npy", lambda own: own / np.float32(255)), "is float32"),
    "images last": (lambda at: saved(at, "train_images.npy", lambda own: own.transpose(0, 2, 3, 1)), "expected uint8"),
    "images flat": (lambda at: saved(at, "test_images.npy", lambda own: own.reshape(len(own), -1)), "expected uint8"),
    "a number": (lambda at: saved(at, "test_images.npy", lambda _: np.uint8(3)), "expected uint8"),
    "no training images": (lambda at: _emptied(at, "train"), "holds nothing"),
    "no test images": (lambda at: _emptied(at, "test"), "holds nothing"),
    "npz": (_npz, "an array.s header can.t be read"),
    "empty file": (lambda at: put(at, "train_images.npy", b""), "an array.s header can.t be read"),
    "pickle": (lambda at: put(at, "test_labels.npy", b"\x80\x04K\x01."), "an array.s header can.t be read"),
    "huge shape": (
        lambda at: put(
            at,
            "test_images.npy",
            b"\x93NUMPY\x01\x00\x60\x00"
            + b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000, 1, 1000, 1000)}".ljust(95)
            + b"\n",
        ),
        "more than",
    ),
}
"""Edits of arrays by name, and what is said of them."""


def _key(name: str, value: Any) -> Callable[[Path], None]:
    return lambda at: reseal(at, lambda manifest: manifest.update({name: value}))


MANIFESTS_EDITED: dict[str, tuple[Callable[[Path], None], str]] = {
    "means": (_key("mean", [0.5, 0.5]), "2 means"),
    "deviations": (_key("std", []), "0 deviations"),
    "mean beyond": (_key("mean", [128.0]), r"outside of \[0, 1\]"),
    "one class": (_key("class_names", ["all"]), "1 classes"),
    "no class": (_key("class_names", []), "0 classes"),
    "a class twice": (_key("class_names", ["a"] * 10), "twice"),
    "no pixels": (_key("shape", [1, 0, 8]), "shape"),
    "other shape": (_key("shape", [1, 4, 16]), "expected uint8"),
    "digits": (lambda at: _written(at, b'{"request": ' + b"1" * 5000 + b"}"), "damaged"),
    "nested": (lambda at: _written(at, b"[" * 100_000), "damaged"),
    "nested request": (lambda at: _written(at, b'{"request": ' + b'{"a":' * 300 + b"1" + b"}" * 301), "damaged"),
    "not a number": (
        lambda at: _written(at, (at / MANIFEST).read_bytes().replace(b'"mean": [', b'"mean": [NaN, ')),
        "damaged|changed",
    ),
    "half a pair": (lambda at: _written(at, b'{"name": "\\ud800"}'), "damaged"),
    "a list": (lambda at: _written(at, b"[]"), "damaged"),
    "null": (lambda at: _written(at, b"null"), "damaged"),
    "empty": (lambda at: _written(at, b""), "damaged"),
    "UTF-16": (lambda at: _written(at, (at / MANIFEST).read_text(encoding="utf-8").encode("utf-16")), "damaged"),
    "Latin-1": (lambda at: _written(at, b'{"name": "caf\xe9"}'), "damaged"),
    "huge": (lambda at: _written(at, b'"' + b"a" * 2**26 + b'"'), "more than"),
}
"""Edits of the manifest by name, and what is said of them."""


def _written(folder: Path, content: bytes) -> None:
    (folder / MANIFEST).write_bytes(content)
