"""Laws of decoding one image file."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from generalist.data.decoding import decode
from generalist.errors import BadInput


def picture(seed: int) -> np.ndarray:
    """Random RGB pixels: uint8 [8, 8, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def encoded(array: np.ndarray, kind: str) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def test_shrinking_averages_all_pixels() -> None:
    """Resizing is antialiased: fine black and white stripes become grey, not one of the two."""
    stripes = np.zeros((32, 32, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    shrunk = decode(encoded(stripes, "PNG"), size=(4, 4), grayscale=False, path=Path("stripes.png"))
    assert np.abs(shrunk.astype(int) - 127).max() < 20


def test_pictures_are_turned_as_the_camera_says() -> None:
    """EXIF orientation 6 means: turn clockwise by a quarter to see it upright."""
    image, buffer = Image.fromarray(picture(0)), io.BytesIO()
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(buffer, "PNG", exif=exif)
    turned = decode(buffer.getvalue(), size=(8, 8), grayscale=False, path=Path("turned.png"))
    assert np.array_equal(turned, np.rot90(picture(0), -1).transpose(2, 0, 1))


def test_deep_images_are_refused() -> None:
    """More than 8 bits a channel would be cut to white."""
    deep = encoded(np.full((8, 8), 40_000, dtype=np.uint16), "PNG")
    with pytest.raises(BadInput, match=r"deep\.png has more than 8 bits"):
        decode(deep, size=(8, 8), grayscale=True, path=Path("deep.png"))


@settings(max_examples=60)
@given(kind=st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"]), data=st.data())
def test_damaged_images_are_told_in_a_sentence(kind: str, data: st.DataObject) -> None:
    """Whatever bytes are lost or changed, decoding gives an image of the right shape or names the file."""
    content = bytearray(encoded(picture(0), kind))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        told, shape = "some.img", decode(damaged, size=(8, 8), grayscale=False, path=Path("some.img")).shape
    except BadInput as error:
        told, shape = str(error), (3, 8, 8)
    assert "some.img" in told
    assert shape == (3, 8, 8)
