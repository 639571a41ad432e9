"""A folder of images, one sub-folder a class."""

import hashlib
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from generalist.config import Quantity
from generalist.config.sections import Count, Fraction
from generalist.data.contract import Raw, Source, Split
from generalist.data.decoding import decode
from generalist.data.manifest import combined_sha256
from generalist.data.splitting import hold_back
from generalist.errors import BadInput

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
OWN_SPLITS = {"train", "test"}

Listing = dict[str, list[Path]]
"""Image files by class name, both sorted."""


class Folder(Source):
    """`path/CLASS/IMAGE`, or `path/train/CLASS/IMAGE` and `path/test/CLASS/IMAGE`.

    Files are known by their suffix. Hidden files, symbolic links and deeper folders are not read.
    """

    name: Literal["folder"]
    path: str = Field(
        description="a folder with one sub-folder of images for each class, or with train/ and test/ of such"
    )
    size: Count | tuple[Count, Count] = Field(32, description="pixels to resize to: a side, or [height, width]")
    grayscale: bool = Field(False, description="one channel in place of three")
    test: Fraction = Field(
        Quantity("0.2"), description="share of the images held back for the test where there is no test/"
    )

    def read(self, root: Path) -> Raw:
        path = root / Path(self.path).expanduser()
        if not path.is_dir():
            raise BadInput(f"{path} is not a folder; name a folder of images by data.path")
        own = _has_own_test(path)
        listing = list_classes(path / "train" if own else path)
        class_names = tuple(listing)
        digests: dict[str, str] = {}
        train = self._decoded(listing, path, digests)
        if own:
            test_listing = list_classes(path / "test")
            _check_same_classes(path, class_names, tuple(test_listing))
            test = self._decoded(test_listing, path, digests)
        else:
            train, test = hold_back(train, self.test, seed=self.seed, class_names=class_names, purpose="test")
        return Raw(train, test, class_names, f"folder: images in {self.path}", combined_sha256(digests))

    def _decoded(self, listing: Listing, path: Path, digests: dict[str, str]) -> Split:
        """Read all files, and note the SHA-256 of each by its name below `path`."""
        size = self.size if isinstance(self.size, tuple) else (self.size, self.size)
        images, labels = [], []
        for label, files in enumerate(listing.values()):
            for file in files:
                content = file.read_bytes()
                digests[file.relative_to(path).as_posix()] = hashlib.sha256(content).hexdigest()
                images.append(decode(content, size=size, grayscale=self.grayscale, path=file))
                labels.append(label)
        return Split(np.stack(images), np.array(labels, dtype=np.int64))


def list_classes(folder: Path) -> Listing:
    """Image files by class.

    Raises:
        BadInput: there are no images, only one class, or a class without images.
    """
    listing = {below.name: _images(below) for below in _folders(folder)}
    if not any(listing.values()):
        raise BadInput(
            f"{folder} holds no images in class sub-folders; put them as CLASS/IMAGE ({', '.join(SUFFIXES)};"
            " hidden files and symbolic links are not read)"
        )
    for name, files in listing.items():
        if not files:
            raise BadInput(f"class folder {folder / name} holds no images; add some or remove it")
    if len(listing) == 1:
        raise BadInput(f"{folder} holds only one class, '{next(iter(listing))}'; add a sub-folder for another")
    return listing


def _has_own_test(path: Path) -> bool:
    names = {folder.name for folder in _folders(path)}
    if not names >= OWN_SPLITS:
        return False
    if names > OWN_SPLITS:
        stranger = min(names - OWN_SPLITS)
        raise BadInput(f"{path} holds '{stranger}' beside train and test; keep the two alone, or classes alone")
    return True


def _check_same_classes(path: Path, train: tuple[str, ...], test: tuple[str, ...]) -> None:
    for name in sorted(set(train) ^ set(test)):
        has, lacks = ("train", "test") if name in train else ("test", "train")
        raise BadInput(f"class '{name}' is in {path / has} but not in {path / lacks}; both need the same classes")


def _folders(path: Path) -> list[Path]:
    return sorted(entry for entry in _visible(path) if entry.is_dir())


def _images(path: Path) -> list[Path]:
    return sorted(entry for entry in _visible(path) if entry.is_file() and entry.suffix.lower() in SUFFIXES)


def _visible(path: Path) -> list[Path]:
    return [entry for entry in path.iterdir() if not entry.name.startswith(".") and not entry.is_symlink()]
