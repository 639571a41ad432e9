"""What a source delivers and what the rest of the library works with."""

import mmap
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from generalist.config import DataOptions
from generalist.data.array_files import map_npy
from generalist.tensors import ImageShape

Uint8 = NDArray[np.uint8]
Int64 = NDArray[np.int64]

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """Images uint8 [n, channels, height, width] and labels int64 [n]."""

    images: Uint8
    labels: Int64

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[Any, ...]:
        # To another process travels the name of a file, not what is mapped from it.
        return _split, (_portable(self.images), _portable(self.labels))


def _portable(array: NDArray[Any]) -> NDArray[Any] | str:
    whole = isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap)  # a part has the whole as its base
    return str(array.filename) if whole and isinstance(array, np.memmap) else array


def _split(*parts: NDArray[Any] | str) -> Split:
    return Split(*(map_npy(Path(part)) if isinstance(part, str) else part for part in parts))


@dataclass(frozen=True)
class SourceData:
    """What a source reads: images to train on and choose with, test images, and where from.

    Attributes:
        train: all images that are not test images; `prepare` takes the validation split from them.
        test: the source's own test split; where it has none, a stratified share that `data.seed` draws.
        class_names: by class index.
        origin: one line for people: what was read.
        checksum: SHA-256 (hex) over the files or arrays that were read.
    """

    train: Split
    test: Split
    class_names: tuple[str, ...]
    origin: str
    checksum: str


class Source(DataOptions):
    """Options of one source of images; `read` delivers them.

    Attributes:
        may_change: whether other images may come to lie in the same place; official files are known by checksums.
    """

    may_change: ClassVar[bool] = False

    @abstractmethod
    def read(self, root: Path) -> SourceData:
        """Read the source; relative paths in its options are below `root`.

        Raises:
            BadInput: files are missing, damaged or not what the source should be.
        """


@dataclass(frozen=True)
class Dataset:
    """Prepared data: the three splits and what the manifest says of them.

    Attributes:
        train, validation, test: the splits, memory-mapped.
        shape: what models are built for.
        class_names: by class index.
        digest: SHA-256 (hex) over the digests of all splits, shapes and class names.
        test_digest: the same over the test split and class names alone: two evaluations compare if it agrees.
        copies: how many images lie in two splits, such as `test in train`.
        unlabelled: images to train on whose labels, all 0, say nothing; None where there are none.
    """

    train: Split
    validation: Split
    test: Split
    shape: ImageShape
    class_names: tuple[str, ...]
    digest: str
    test_digest: str
    copies: Mapping[str, int] = field(default_factory=dict)
    unlabelled: Split | None = None
