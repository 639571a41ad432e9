"""Fashion-MNIST: 60,000 + 10,000 grey images of 28×28 pixels in 10 classes."""

import gzip
import struct
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from generalist.data.dataset import Split, Uint8
from generalist.data.torchvision_source import TorchvisionSource


class FashionMnist(TorchvisionSource):
    """Xiao et al. 2017, https://github.com/zalandoresearch/fashion-mnist.

    The four official `.gz` files are read as they are. torchvision's own reader would take an unpacked
    copy, or a pickled one of its older versions, without looking at their checksums.
    """

    reads: ClassVar[str] = "FashionMNIST"

    name: Literal["fashion_mnist"]
    path: str = Field(
        "data/raw/fashion_mnist", description="the folder of the four .gz files, or torchvision's root of them"
    )

    def listed(self) -> list[tuple[str, str, str]]:
        return [(self.reader().mirrors[0] + name, name, md5) for name, md5 in self.reader().resources]

    def place(self, path: Path) -> Path:
        """Return `path` itself where the files lie there, else where torchvision puts them."""
        itself = any((path / name).is_file() for name in self.official())
        return path if itself else path / "FashionMNIST" / "raw"

    def decode(self, folder: Path) -> tuple[Split, Split, tuple[str, ...]]:
        return _split(folder, "train"), _split(folder, "t10k"), tuple(self.reader().classes)


def _split(folder: Path, name: str) -> Split:
    images = _idx(folder / f"{name}-images-idx3-ubyte.gz")
    labels = _idx(folder / f"{name}-labels-idx1-ubyte.gz")
    return Split(images[:, None], labels.astype(np.int64))


def _idx(path: Path) -> Uint8:
    """Return the array of a gzipped idx file: two zero bytes, type (8 is uint8), rank, big-endian sizes, values."""
    content = gzip.decompress(path.read_bytes())
    rank = content[3]
    sizes = struct.unpack_from(f">{rank}I", content, offset=4)
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * rank).reshape(sizes)
