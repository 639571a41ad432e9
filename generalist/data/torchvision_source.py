"""Data sets whose official files torchvision knows by name and MD5."""

import hashlib
import tarfile
import tempfile
from abc import abstractmethod
from http.client import HTTPException
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from generalist.atomic_files import partial_name, rename
from generalist.data.dataset import Source, SourceData, Split
from generalist.data.manifest import combined_sha256
from generalist.errors import BadInput


class TorchvisionSource(Source):
    """Reads official files, and nothing else: each must have the MD5 that torchvision lists for it.

    Attributes:
        reads: the class of `torchvision.datasets` that knows them.
    """

    reads: ClassVar[str]

    path: str = Field(description="the folder of the official files")
    download: bool = Field(False, description="fetch missing official files; nothing is fetched otherwise")

    def read(self, root: Path) -> SourceData:
        """Verify the official files, then read them.

        Raises:
            BadInput: a file is missing, can't be fetched, or is not the official one.
        """
        path = (root / Path(self.path).expanduser()).resolve()
        official = self.official()
        folder = self.place(path)
        if self.download and _missing(folder, official):
            folder = self._fetched(path)
        checksum = self._verified(folder, official)
        train, test, class_names = self.decode(folder)
        return SourceData(train, test, class_names, f"{self.name}: official files in {self.path}", checksum)

    def reader(self) -> Any:
        """Return that class; to import torchvision takes seconds, and reading a configuration needs none of it."""
        from generalist.torchvision_compat import torchvision

        return getattr(torchvision.datasets, self.reads)

    @abstractmethod
    def listed(self) -> list[tuple[str, str, str]]:
        """Return address, name and MD5 (hex) of each file."""

    def official(self) -> dict[str, str]:
        """Return the MD5 (hex) by file name."""
        return {name: md5 for _, name, md5 in self.listed()}

    def place(self, path: Path) -> Path:
        """Return the folder in which the files lie, where `path` is what the user named."""
        return path

    def fetch(self, path: Path) -> None:
        """Download the missing files into `path`, to where `place` finds them."""
        folder = self.place(path)
        for url, name, md5 in self.listed():
            if not (folder / name).exists():
                download(url, folder / name, md5=md5)

    @abstractmethod
    def decode(self, folder: Path) -> tuple[Split, Split, tuple[str, ...]]:
        """Return the training split, test split and class names from files that have been verified."""

    def _fetched(self, path: Path) -> Path:
        try:
            path.mkdir(parents=True, exist_ok=True)
            self.fetch(path)
        except (OSError, RuntimeError, HTTPException) as error:
            raise BadInput(
                f"{self.name} can't be downloaded to {path} ({error}); try again, or put the official files there"
            ) from None
        return self.place(path)

    def _verified(self, folder: Path, official: dict[str, str]) -> str:
        """Return the SHA-256 over the files, once they are known to be the official ones."""
        missing = _missing(folder, official)
        if missing:
            raise BadInput(
                f"{', '.join(missing)} of {self.name} not found in {folder}; put the official files there,"
                " name their folder by data.path, or let data.download=true fetch them"
            )
        digests = {}
        for name, md5 in official.items():
            content = (folder / name).read_bytes()
            if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
                raise BadInput(
                    f"{folder / name} is not the official file of {self.name}: its MD5 is not {md5}; delete it,"
                    " and put the official file there or let data.download=true fetch it"
                )
            digests[name] = hashlib.sha256(content).hexdigest()
        return combined_sha256(digests)


def _missing(folder: Path, official: dict[str, str]) -> list[str]:
    return [name for name in official if not (folder / name).is_file()]


def download(url: str, target: Path, *, md5: str) -> None:
    """Fetch one file under a temporary name, check it, and give it its own.

    Raises:
        OSError, RuntimeError, HTTPException: it can't be fetched, or is not the file that `md5` tells of.
    """
    from generalist.torchvision_compat import torchvision

    target.parent.mkdir(parents=True, exist_ok=True)
    with partial_name(target) as part:
        torchvision.datasets.utils.download_url(url, root=str(part.parent), filename=part.name, md5=md5)
        rename(part, target)


class CifarSource(TorchvisionSource):
    """CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from the official "python version"; both have the same form.

    Their files are pickles, and unpickling runs what it reads. `read` lets `decode` at them only after
    each file proved to be the official one.
    """

    def listed(self) -> list[tuple[str, str, str]]:
        reader = self.reader()
        files = [*reader.train_list, *reader.test_list, (reader.meta["filename"], reader.meta["md5"])]
        return [(reader.url, name, md5) for name, md5 in files]

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
