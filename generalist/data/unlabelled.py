"""Images without labels, from a folder or a file."""

import logging
from pathlib import Path

import numpy as np

from generalist.config import DataOptions
from generalist.config.data import REST
from generalist.data.array_files import UnreadableArray, read_npz
from generalist.data.dataset import Split, Uint8
from generalist.data.manifest import combined_sha256
from generalist.errors import BadInput
from generalist.untrusted import file_sha256, printable

_MEND = "name a folder of images or an .npz file by data.unlabelled, or set it to null"


def unlabelled_path(options: DataOptions, root: Path) -> Path | None:
    """Return the folder or file that `data.unlabelled` names; None where it names none."""
    written = options.unlabelled
    return None if written in (None, REST) else root / Path(str(written)).expanduser()


def read_unlabelled(path: Path, *, shape: tuple[int, int, int]) -> tuple[Uint8, str]:
    """Read images and return them with a SHA-256 (hex) over what was read.

    Args:
        path: a folder, in which images may lie in nested folders, or an `.npz` file with the array `images`.
        shape: channels, height and width. What is decoded is resized to it; an array must have it.

    Raises:
        BadInput: there is nothing there, no image among it, or one that can't be read.
    """
    if path.is_dir():
        return _of_folder(path, shape)
    if path.suffix != ".npz" or not path.is_file():
        raise BadInput(f"{printable(path)} is neither a folder nor an .npz file; {_MEND}")
    try:
        images = read_npz(path, ["images"])["images"]
    except UnreadableArray as error:
        raise BadInput(f"{printable(path)} can't be read ({error.reason}); {_MEND}") from None
    if images.dtype != np.uint8 or images.shape[1:] != shape or not len(images):
        raise BadInput(
            f"{printable(path)} has images of {images.dtype} {list(images.shape)}, expected uint8 [n, "
            f"{', '.join(map(str, shape))}] with one at least, as the training images are; {_MEND}"
        )
    return images, file_sha256(path)


def without_labels(images: Uint8) -> Split:
    """Return images as a split whose labels, all 0, say nothing."""
    return Split(images, np.zeros(len(images), dtype=np.int64))


def _of_folder(path: Path, shape: tuple[int, int, int]) -> tuple[Uint8, str]:
    from generalist.data.image_files import find  # both need Pillow, which arrays don't
    from generalist.data.image_reader import ImageReader

    listing = find(path)
    if not listing.files:
        raise BadInput(f"{printable(path)} holds no images in a format that Pillow reads, such as .png; {_MEND}")
    if sentence := listing.told():
        logging.getLogger("generalist").warning("%s", sentence)
    channels, *size = shape
    reader = ImageReader(listing, (size[0], size[1]), grayscale=channels == 1)
    pairs = reader.read({"": listing.files})
    reader.check()
    return np.stack([image for image, _ in pairs]), combined_sha256(reader.digests)
