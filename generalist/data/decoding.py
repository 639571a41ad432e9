"""From an image file to pixels, the same for training and prediction. No torch here."""

import io
import logging
import re
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from generalist.data.image_files import formats, is_utf8
from generalist.errors import BadInput
from generalist.untrusted import printable

LISTED = 10
"""Files that a sentence names; of others it gives the number."""
_MOST_BYTES = 2**30  # of a file: no picture of our limit in pixels needs as many
_LONGEST = 200  # characters of what Pillow says
_PNG = b"\x89PNG\r\n\x1a\n"


class UnreadableImage(BadInput):
    """An image file that can't be read.

    Attributes:
        path: of the file.
        reason: what goes after its name, such as `is empty`.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{printable(path)} {reason}; mend or remove it")
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[Any, ...]:
        return UnreadableImage, (self.path, self.reason)


def content(path: Path) -> bytes:
    """Read an image file. What is no regular file is never opened: a pipe would wait for ever.

    Raises:
        UnreadableImage: it is missing, empty, huge, no regular file, or named in another encoding than UTF-8.
    """
    if not is_utf8(path):
        raise UnreadableImage(path, "is named in another encoding than UTF-8: rename it")
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode) and status.st_size <= _MOST_BYTES:
            data = path.read_bytes()
        elif stat.S_ISDIR(status.st_mode):
            next(path.iterdir(), None)  # says why it couldn't be listed
            raise UnreadableImage(path, "is a folder, not an image")
        elif stat.S_ISREG(status.st_mode):
            raise UnreadableImage(path, f"is larger than {_MOST_BYTES // 2**30} GiB")
        else:
            raise UnreadableImage(path, "is a pipe, socket or device, not an image")
    except OSError as error:
        if path.is_symlink() and not path.exists():
            raise UnreadableImage(path, "is a link that leads nowhere or in a circle") from None
        raise UnreadableImage(path, f"can't be read ({error.strerror or error})") from None
    if not data:
        raise UnreadableImage(path, "is empty")
    return data


def decode(
    content: bytes, *, size: tuple[int, int] | None, grayscale: bool, path: Path, remarks: list[str] | None = None
) -> NDArray[np.uint8]:
    """Decode an image, turn it as its camera says, and resize it (bilinear, antialiased; the aspect may change).

    Of 16 bits a channel the upper 8 are taken, as Pillow does for colours, so 65535 becomes 255. EXIF data that is
    damaged is ignored. Of several frames the first is read.

    Args:
        content: the bytes of the file.
        size: height and width of the result; None for the image's own.
        grayscale: one channel (luma) in place of three (RGB). Transparency is dropped either way.
        path: of the file, for the error.
        remarks: takes what Pillow warned of, after the file's name; without a list it is logged.

    Returns:
        uint8 [channels, height, width]

    Raises:
        UnreadableImage: it is not an image, is broken, has more pixels than Pillow's limit against decompression bombs,
            or values that aren't of 8 or 16 bits.
    """
    with _warned() as warned:
        pixels = _pixels(content, size=size, grayscale=grayscale, path=path)
    if warned:
        remark = f"{printable(path)} ({_short('; '.join(dict.fromkeys(warned)))})"
        if remarks is None:
            tell_remarks([remark])
        else:
            remarks.append(remark)
    array = np.asarray(pixels)
    return array[None] if grayscale else np.ascontiguousarray(array.transpose(2, 0, 1))


def tell_remarks(remarks: Sequence[str]) -> None:
    """Log in one sentence of which files Pillow warned, if of any."""
    if remarks:
        logging.getLogger("generalist").warning("Pillow warns of %s", _listed(remarks))


def refuse(unreadable: Sequence[UnreadableImage]) -> NoReturn:
    """Refuse files that can't be read, all of them in one sentence.

    Raises:
        BadInput: with the first ten by name and reason, and the number of the others.
    """
    if len(unreadable) == 1:
        raise unreadable[0]
    listed = _listed([f"{printable(one.path)} {one.reason}" for one in unreadable])
    raise BadInput(f"{len(unreadable):,} images can't be read: {listed}; mend or remove them")


def _pixels(content: bytes, *, size: tuple[int, int] | None, grayscale: bool, path: Path) -> Image.Image:
    try:
        with _opened(content) as image:
            image.load()  # before the orientation is asked for: Pillow turns TIFF itself, here
            with suppress(Exception):  # as for pixels, and these are fine where EXIF data is damaged
                ImageOps.exif_transpose(image, in_place=True)
            even = _of_8_bits(image, path)
            coloured = even.convert("L" if grayscale else "RGB")
            return coloured if size is None else coloured.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    except UnreadableImage:
        raise
    except UnidentifiedImageError:
        raise UnreadableImage(path, "is no image that Pillow can read") from None
    except Image.DecompressionBombError:
        limit = f"{2 * (Image.MAX_IMAGE_PIXELS or 0):,}"
        raise UnreadableImage(path, f"has more than {limit} pixels, the limit against decompression bombs") from None
    except Exception as error:  # noqa: BLE001  damaged bytes make Pillow's decoders raise almost anything
        raise UnreadableImage(
            path, f"can't be read as an image ({_short(str(error) or type(error).__name__)})"
        ) from None


def _opened(content: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content), formats=formats())
    except Image.DecompressionBombError:
        raise
    except Exception:  # Pillow refuses good pixels of some formats for a damaged EXIF block beside them
        bare = _bare(content)
        if bare == content:
            raise
        return Image.open(io.BytesIO(bare), formats=formats())


def _bare(content: bytes) -> bytes:
    """Leave out what a PNG can do without and is damaged, and hide the EXIF item of an AVIF."""
    if content[4:12] == b"ftypavif":
        head, mark, pixels = content.partition(b"mdat")
        return head.replace(b"Exif", b"none") + mark + pixels
    if not content.startswith(_PNG):
        return content
    kept, position = [_PNG], len(_PNG)
    while position + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, position)
        chunk = content[position : position + 12 + length]
        kind = chunk[4:8]
        whole = chunk[-4:] == struct.pack(">I", zlib.crc32(chunk[4:-4]))
        if not kind[:1].islower() or (kind == b"eXIf" and whole):
            kept.append(chunk)
        position += len(chunk)
    return b"".join(kept)


def _of_8_bits(image: Image.Image, path: Path) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        tags = getattr(image, "tag_v2", {})  # TIFF also has 12 bits, unscaled
        bits = max(8, int(tags.get(258, (16,))[0]))
        return Image.fromarray((np.asarray(image) >> (bits - 8)).clip(0, 255).astype(np.uint8))
    if image.mode.startswith(("I", "F")):
        raise UnreadableImage(path, "has values of more than 16 bits, whose white is not known: convert it to 8 bits")
    return image


@contextmanager
def _warned() -> Iterator[list[str]]:
    """Collect what Pillow would print: its warnings, and what its plug-ins log."""
    said: list[str] = []
    log, handler = logging.getLogger("PIL"), logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    before, log.propagate = log.propagate, False
    log.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                yield said
            finally:
                said += [str(one.message) for one in caught if not issubclass(one.category, DeprecationWarning)]
    finally:
        log.removeHandler(handler)
        log.propagate = before


def _listed(parts: Sequence[str]) -> str:
    more = [f"and {len(parts) - LISTED:,} more"] if len(parts) > LISTED else []
    return ", ".join([*parts[:LISTED], *more])


def _short(text: str) -> str:
    """Return what Pillow says in one line, without the addresses of its objects."""
    text = printable(" ".join(re.sub(r"<[^<>]* at 0x[0-9a-fA-F]+>", "it", text).split()))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
