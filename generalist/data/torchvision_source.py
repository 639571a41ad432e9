"""Data sets whose official files torchvision knows by name and MD5."""

import hashlib
from abc import abstractmethod
from http.client import HTTPException
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from generalist.data.contract import Raw, Source, Split
from generalist.data.manifest import combined_sha256
from generalist.errors import BadInput
from generalist.writing import part_of, rename


class TorchvisionSource(Source):
    """Reads official files, and nothing else: each must have the MD5 that torchvision lists for it.

    Attributes:
        reads: the class of `torchvision.datasets` that knows them.
    """

    reads: ClassVar[str]

    path: str = Field(description="the folder of the official files")
    download: bool = Field(False, description="fetch missing official files; nothing is fetched otherwise")

    def read(self, root: Path) -> Raw:
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
        return Raw(train, test, class_names, f"{self.name}: official files in {self.path}", checksum)

    def reader(self) -> Any:
        """Return that class; to import torchvision takes seconds, and reading a configuration needs none of it."""
        from generalist.torchvision_compat import torchvision

        return getattr(torchvision.datasets, self.reads)

    @abstractmethod
    def official(self) -> dict[str, str]:
        """Return the MD5 (hex) by file name."""

    def place(self, path: Path) -> Path:
        """Return the folder in which the files lie, where `path` is what the user named."""
        return path

    @abstractmethod
    def fetch(self, path: Path) -> None:
        """Download the missing files into `path`, to where `place` finds them."""

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
    with part_of(target) as part:
        torchvision.datasets.utils.download_url(url, root=str(part.parent), filename=part.name, md5=md5)
        rename(part, target)
