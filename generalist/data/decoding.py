"""From the bytes of an image file to pixels."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from generalist.data.contract import Uint8
from generalist.errors import BadInput


def decode(content: bytes, *, size: tuple[int, int], grayscale: bool, path: Path) -> Uint8:
    """Decode an image, turn it as its camera says, and resize it (bilinear, antialiased; the aspect may change).

    Args:
        content: the bytes of the file.
        size: height and width of the result.
        grayscale: one channel (luma) in place of three (RGB). Transparency is dropped either way.
        path: of the file, for the error.

    Returns:
        uint8 [channels, height, width]

    Raises:
        BadInput: it is not an image, is broken, or has more than 8 bits a channel.
    """
    height, width = size
    try:
        with Image.open(io.BytesIO(content)) as image:
            deep = image.mode.startswith(("I", "F"))
            upright = ImageOps.exif_transpose(image)
            pixels = upright.convert("L" if grayscale else "RGB").resize((width, height), Image.Resampling.BILINEAR)
    except Exception as error:  # noqa: BLE001  damaged bytes make Pillow's decoders raise almost anything
        raise BadInput(f"{path} can't be read as an image ({error}); mend or remove it") from None
    if deep:
        raise BadInput(f"{path} has more than 8 bits a channel, which would be cut off; convert it to 8 bits")
    array = np.asarray(pixels)
    return array[None] if grayscale else np.ascontiguousarray(array.transpose(2, 0, 1))
