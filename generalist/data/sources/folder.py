"""A folder of images, one sub-folder a class."""

import logging
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from generalist.config import Quantity
from generalist.config.bounds import Fraction, Many
from generalist.data.dataset import Source, SourceData, Split
from generalist.data.decoding import content
from generalist.data.image_files import LOOSE, ImageListing, Parts, composed, find, is_utf8, told
from generalist.data.image_reader import ImageReader, LabelledImages
from generalist.data.manifest import combined_sha256
from generalist.data.splits import stratified_split
from generalist.errors import BadInput
from generalist.untrusted import printable

OWN_SPLITS = {"train", "test"}
_SPLIT_WORDS = {"dev", "test", "testing", "train", "training", "val", "valid", "validation"}

Listing = dict[str, list[Path]]
"""Image files by class name (NFC), both sorted."""


class Folder(Source):
    """`path/CLASS/IMAGE`, or `path/train/CLASS/IMAGE` and `path/test/CLASS/IMAGE`.

    Images may lie in nested folders of their class. Links are followed, also out of the folder. Files are known by
    their suffix: all that Pillow reads. What is left out, such as hidden files, is logged by number and kind. Of 16
    bits a channel the upper 8 are taken. Names are compared in Unicode's composed form (NFC).
    """

    may_change: ClassVar[bool] = True

    name: Literal["folder"]
    path: str = Field(
        description="a folder with one sub-folder of images for each class, or with train/ and test/ of such"
    )
    size: Many | tuple[Many, Many] = Field(32, description="pixels to resize to: a side, or [height, width]")
    grayscale: bool = Field(False, description="one channel in place of three")
    test: Fraction = Field(
        Quantity("0.2"), description="share of the images held back for the test where there is no test/"
    )

    @property
    def title(self) -> str:
        return Path(self.path).name or self.name

    def read(self, root: Path) -> SourceData:
        path = root / Path(self.path).expanduser()
        if not path.is_dir():
            raise BadInput(f"{printable(path)} is not a folder; name a folder of images by data.path")
        image_listing = find(path)
        _check_open(image_listing)
        _check_names(image_listing)
        has_test = _has_own_test(image_listing)
        listing = _classes(image_listing, ("train",) if has_test else ())
        class_names = tuple(listing)
        test_listing = _classes(image_listing, ("test",)) if has_test else {}
        if has_test:
            _check_same_classes(path, class_names, tuple(test_listing))
        if sentence := image_listing.told():
            logging.getLogger("generalist").warning("%s", sentence)
        images = ImageReader(
            image_listing, self.size if isinstance(self.size, tuple) else (self.size, self.size), self.grayscale
        )
        train, own_test = images.read(listing), images.read(test_listing)
        images.check()
        kept, test = _split(train), _split(own_test) if has_test else None
        if test is None:
            kept, test = stratified_split(kept, self.test, seed=self.seed, class_names=class_names, purpose="test")
        return SourceData(kept, test, class_names, f"folder: images in {self.path}", combined_sha256(images.digests))


def _split(pairs: LabelledImages) -> Split:
    images, labels = zip(*pairs, strict=True)
    return Split(np.stack(images), np.array(labels, dtype=np.int64))


def _classes(images: ImageListing, split: Parts) -> Listing:
    """Return image files by class; what lies beside the classes is noted as left out.

    Raises:
        BadInput: there are no images, only one class, or a class without images.
    """
    depth = len(split)
    names = {parts[depth] for parts in images.folders if len(parts) > depth and parts[:depth] == split}
    listing: Listing = {name: [] for name in sorted(composed(names))}
    for file in images.files:
        parts = images.below(file)
        if len(parts) == 1 or (len(parts) == depth + 1 and parts[:depth] == split):
            images.left_out[file] = LOOSE
        elif parts[:depth] == split:
            listing[composed(parts)[depth]].append(file)
    _check_classes(images.root.joinpath(*split), listing, images)
    return listing


def _check_classes(folder: Path, listing: Listing, images: ImageListing) -> None:
    place = printable(folder)
    if not any(listing.values()):
        raise BadInput(
            f"{place} holds no images in class sub-folders{_besides(folder, images)}; put them as CLASS/IMAGE, in a"
            " format that Pillow reads, such as .jpg or .png"
        )
    for name, files in listing.items():
        if not files:
            raise BadInput(
                f"class folder {printable(folder / name)} holds no images{_besides(folder / name, images)}; add some or"
                " remove it"
            )
    if len(listing) == 1:
        raise BadInput(
            f"{place} holds only one class, '{printable(next(iter(listing)))}'; add a sub-folder for another"
        )


def _besides(folder: Path, images: ImageListing) -> str:
    """Return what was left out below a folder, in brackets, or nothing."""
    below = composed(folder.parts)
    kinds = [kind for path, kind in images.left_out.items() if composed(path.parts[: len(below)]) == below]
    return f" (left out: {told(kinds)})" if kinds else ""


def _check_open(images: ImageListing) -> None:
    """Refuse folders that can't be listed; the walk gives them in place of their files."""
    closed = [file for file in images.files if file == images.root or images.below(file) in images.folders]
    for folder in closed:
        content(folder)  # raises, with the reason


def _check_names(images: ImageListing) -> None:
    """Refuse names that can't be written, and pairs of them that look alike."""
    spelt: dict[Parts, Parts] = {}
    for parts in sorted(images.folders) + [images.below(file) for file in images.files]:
        path = images.root.joinpath(*parts)
        if not is_utf8(path.name) and parts in images.folders:
            raise BadInput(f"folder {printable(path)} is named in another encoding than UTF-8; rename it")
        if spelt.setdefault(composed(parts), parts) != parts:
            raise BadInput(
                f"{printable(path.parent)} holds '{printable(path.name)}' twice, its accents spelt in two ways of"
                " Unicode (NFC and NFD); merge or rename them"
            )


def _has_own_test(images: ImageListing) -> bool:
    names, place = {parts[0] for parts in images.folders}, printable(images.root)
    if names > OWN_SPLITS:
        stranger = printable(min(names - OWN_SPLITS))
        raise BadInput(f"{place} holds '{stranger}' beside train and test; keep the two alone, or classes alone")
    loose = {parts[0] for file in images.files if len(parts := images.below(file)) == 2}
    if names != OWN_SPLITS and len(names) > 1 and not loose and {name.casefold() for name in names} <= _SPLIT_WORDS:
        listed = " and ".join(f"'{name}'" for name in sorted(names))
        raise BadInput(f"{place} holds {listed}, which look like splits, not classes; name two splits train and test")
    return names == OWN_SPLITS


def _check_same_classes(path: Path, train: tuple[str, ...], test: tuple[str, ...]) -> None:
    for name in sorted(set(train) ^ set(test)):
        has, lacks = ("train", "test") if name in train else ("test", "train")
        raise BadInput(
            f"class '{printable(name)}' is in {printable(path / has)} but not in {printable(path / lacks)}; both need"
            " the same classes"
        )
