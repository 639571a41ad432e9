"""Prepared data, verified and memory-mapped."""

from pathlib import Path

import numpy as np

from generalist.data.contract import Dataset, Split
from generalist.data.manifest import ARRAYS, MEND, Manifest, file_sha256
from generalist.errors import BadInput
from generalist.tensors import ImageShape


def load(folder: Path) -> Dataset:
    """Open what `prepare` wrote; every byte is checked against the manifest first.

    Raises:
        BadInput: the folder is missing, or a file in it has changed, is cut short or missing.
    """
    manifest = Manifest.read(folder)
    for name in ARRAYS:
        _verify(folder / name, manifest.files.get(name))
    channels, height, width = manifest.shape
    shape = ImageShape(
        channels=channels,
        height=height,
        width=width,
        classes=len(manifest.class_names),
        mean=manifest.mean,
        std=tuple(std or 1.0 for std in manifest.std),  # constant pixels need no scaling, and 0 can't divide
    )
    return Dataset(
        train=_split(folder, "train"),
        validation=_split(folder, "validation"),
        test=_split(folder, "test"),
        shape=shape,
        class_names=manifest.class_names,
        digest=manifest.digest,
        test_digest=manifest.test_digest,
        copies=manifest.copies,
    )


def _verify(path: Path, expected: str | None) -> None:
    if not path.is_file():
        raise BadInput(f"{path} is missing from the prepared data; {MEND}")
    if file_sha256(path) != expected:
        raise BadInput(f"{path} has changed since it was prepared; {MEND}")


def _split(folder: Path, name: str) -> Split:
    images, labels = (
        np.load(folder / f"{name}_{part}.npy", mmap_mode="r", allow_pickle=False) for part in ("images", "labels")
    )
    return Split(images, labels)
