"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from the official "python version"."""

import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from generalist.data.contract import Split
from generalist.data.torchvision_source import TorchvisionSource, download


class CifarSource(TorchvisionSource):
    """Both have the same form.

    Their files are pickles, and unpickling runs what it reads. `read` lets `decode` at them only after
    each file proved to be the official one.
    """

    def official(self) -> dict[str, str]:
        reader = self.reader()
        return {**dict(reader.train_list + reader.test_list), reader.meta["filename"]: reader.meta["md5"]}

    def place(self, path: Path) -> Path:
        """Return the folder of the files; `path` may be it, or the one that holds it under its official name."""
        below = path / self.reader().base_folder
        itself = any((path / name).is_file() for name in self.official())
        return path if itself and not below.is_dir() else below

    def fetch(self, path: Path) -> None:
        reader = self.reader()
        folder = path / reader.base_folder
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path, prefix=".") as scratch:
            archive = Path(scratch) / reader.filename
            download(reader.url, archive, md5=reader.tgz_md5)
            with tarfile.open(archive) as tar:
                tar.extractall(scratch, filter="data")
            for name in self.official():
                if not (folder / name).exists():
                    (Path(scratch) / reader.base_folder / name).replace(folder / name)

    def decode(self, folder: Path) -> tuple[Split, Split, tuple[str, ...]]:
        # A subclass, because torchvision insists on the official folder name.
        reader = type("Reader", (self.reader(),), {"base_folder": folder.name})
        train, test = (reader(root=str(folder.parent), train=part) for part in (True, False))
        return _split(train), _split(test), tuple(train.classes)


def _split(read: Any) -> Split:
    """Return a split of torchvision's arrays, which are NHWC."""
    return Split(np.ascontiguousarray(read.data.transpose(0, 3, 1, 2)), np.array(read.targets, dtype=np.int64))
