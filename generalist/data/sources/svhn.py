"""SVHN, cropped digits: 73,257 + 26,032 colour images of 32×32 pixels in 10 classes."""

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from generalist.data.dataset import Split
from generalist.data.torchvision_source import TorchvisionSource

_SPLITS = ("train", "test")


class Svhn(TorchvisionSource):
    """Netzer et al. 2011, http://ufldl.stanford.edu/housenumbers/; its `extra` images are not used."""

    reads: ClassVar[str] = "SVHN"

    name: Literal["svhn"]
    path: str = Field("data/raw/svhn", description="the folder of train_32x32.mat and test_32x32.mat")

    def decode(self, folder: Path) -> tuple[Split, Split, tuple[str, ...]]:
        train, test = (self.reader()(root=str(folder), split=name) for name in _SPLITS)
        return _split(train), _split(test), tuple(str(digit) for digit in range(10))

    def listed(self) -> list[tuple[str, str, str]]:
        return [tuple(self.reader().split_list[name]) for name in _SPLITS]


def _split(read: Any) -> Split:
    """Return a split of torchvision's arrays, which are NCHW; the digit 0 has label 0."""
    return Split(np.ascontiguousarray(read.data), read.labels)
