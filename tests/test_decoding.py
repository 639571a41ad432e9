"""Laws of decoding one image file."""

import io
import os
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image

from generalist.data.decoding import UnreadableImage, content, decode, refuse
from generalist.data.image_files import formats, suffixes
from generalist.errors import BadInput


def picture(seed: int) -> np.ndarray:
    """Random RGB pixels: uint8 [8, 8, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def encoded(array: np.ndarray, kind: str) -> bytes:
    """Return the bytes of an image file."""
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


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_of_16_bits_the_upper_8_are_taken(kind: str) -> None:
    """Grey images of 16 bits become what the same image in colours becomes by Pillow."""
    deep = np.array([[0, 255], [40_000, 65_535]], dtype=np.uint16)
    pixels = decode(encoded(deep, kind), size=(2, 2), grayscale=True, path=Path("deep"))
    assert pixels.tolist() == [(deep >> 8).tolist()]


def test_colours_of_16_bits_are_as_grey_ones() -> None:
    """Pillow takes the upper 8 bits."""
    rows = b"".join(b"\0" + struct.pack(">6H", *[value] * 3, *[65_535] * 3) for value in (40_000, 255))
    colours = png((2, 2, 16, 2), chunk(b"IDAT", zlib.compress(rows)))
    assert decode(colours, size=(2, 2), grayscale=True, path=Path("x")).tolist() == [[[156, 255], [0, 255]]]


def test_tiff_of_12_bits_is_scaled() -> None:
    """4095 is white."""
    pixels = bytes.fromhex("000fff800400")  # 0, 4095, 2048, 1024
    tags = [(256, 2), (257, 2), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 2), (279, len(pixels))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    content = b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + struct.pack("<H", len(tags)) + entries + bytes(4)
    assert decode(content, size=(2, 2), grayscale=True, path=Path("x")).tolist() == [[[0, 255], [128, 64]]]


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_values_without_a_known_white_are_refused(dtype: type) -> None:
    """A guess would make them black or white."""
    with pytest.raises(BadInput, match=r"^deep\.tif has values of more than 16 bits.*convert it to 8 bits"):
        decode(encoded(np.ones((8, 8), dtype=dtype), "TIFF"), size=(8, 8), grayscale=True, path=Path("deep.tif"))


def with_exif(kind: str) -> tuple[bytes, int, int]:
    """Return a lossless picture if possible, to be turned by a quarter, and where its EXIF block begins and ends."""
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112], exif[0x010E] = 6, "a description"
    Image.fromarray(picture(0)).save(buffer, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    content, block = buffer.getvalue(), exif.tobytes()[6:]
    begin = content.index(block)
    return content, begin, begin + len(block)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_pixels_beside_damaged_exif_are_read(kind: str) -> None:
    """Whichever byte of the EXIF block is damaged, or all: the picture is read, turned or not."""
    content, begin, end = with_exif(kind)
    damages = [content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :] for at in range(begin, end)]
    upright = decode(content, size=(8, 8), grayscale=False, path=Path("x"))
    for damaged in [*damages, content[:begin] + b"\xff" * (end - begin) + content[end:]]:
        pixels = decode(damaged, size=(8, 8), grayscale=False, path=Path("x"), remarks=[])
        assert any(np.array_equal(np.rot90(upright, turns, (1, 2)), pixels) for turns in range(4)) or np.array_equal(
            np.sort(upright.ravel()), np.sort(pixels.ravel())
        )


def test_an_intact_orientation_is_heeded_beside_a_damaged_text() -> None:
    """A PNG's other extras may be damaged, and still its picture is turned."""
    content = with_exif("PNG")[0]
    text = chunk(b"tEXt", b"Title\0x")[:-1] + b"?"
    pixels = decode(content[:33] + text + content[33:], size=(8, 8), grayscale=False, path=Path("x"))
    assert np.array_equal(pixels, np.rot90(picture(0), -1).transpose(2, 0, 1))


def png(header: tuple[int, int, int, int], *chunks: bytes) -> bytes:
    """Return a PNG of width, height, bits and kind of colour."""
    start = chunk(b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + start + b"".join(chunks) + chunk(b"IEND", b"")


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return a part of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_a_decompression_bomb_is_refused() -> None:
    """Before its pixels take memory."""
    bomb = png((60_000, 60_000, 1, 0), chunk(b"IDAT", zlib.compress(bytes(100))))
    with pytest.raises(
        BadInput, match=r"^bomb\.png has more than [\d,]+ pixels, the limit against decompression bombs"
    ):
        decode(bomb, size=(8, 8), grayscale=False, path=Path("bomb.png"))


def test_warnings_of_pillow_name_the_file(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are logged in a sentence of ours, or given to who asks; nothing is printed raw."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)  # and up to twice as many are read
    content = encoded(picture(0), "PNG")
    assert decode(content, size=(8, 8), grayscale=False, path=Path("large.png")).shape == (3, 8, 8)
    (record,) = caplog.records
    assert record.name == "generalist"
    assert record.getMessage().startswith("Pillow warns of large.png (Image size (64 pixels) exceeds limit")
    remarks: list[str] = []
    decode(content, size=(8, 8), grayscale=False, path=Path("large.png"), remarks=remarks)
    assert [remark.partition(" ")[0] for remark in remarks] == ["large.png"]
    assert len(caplog.records) == 1


def test_what_plugins_of_pillow_log_is_told_with_the_file(caplog: pytest.LogCaptureFixture) -> None:
    """TIFF with more samples than there are."""
    tags = [(256, 2), (257, 2), (258, 8), (259, 1), (262, 1), (273, 8), (277, 9000), (278, 2), (279, 4)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    content = b"II*\0" + struct.pack("<I", 12) + bytes(4) + struct.pack("<H", len(tags)) + entries + bytes(4)
    with pytest.raises(BadInput, match=r"^x\.tif "):
        decode(content, size=(2, 2), grayscale=True, path=Path("x.tif"))
    assert {record.name for record in caplog.records} <= {"generalist"}


@pytest.mark.parametrize(
    ("given", "reason"),
    [(b"no image", "is no image"), (b"x" * 999, "is no image"), (b"\x89PNG\r\n\x1a\n", "is no image")],
)
def test_what_is_no_image_is_called_so(given: bytes, reason: str) -> None:
    """Without the addresses of Pillow's objects."""
    with pytest.raises(UnreadableImage) as caught:
        decode(given, size=(8, 8), grayscale=False, path=Path("x.png"))
    assert caught.value.reason.startswith(reason)
    assert "0x" not in str(caught.value)


def test_no_picture_starts_ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither PostScript nor what holds it, whatever their names; Pillow by itself starts it for both."""
    started = tmp_path / "started"
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {started}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    fields = [((3, 60), b"\1\0"), ((3, 20), b"\0\x08"), ((3, 30), b"\0\x08"), ((3, 120), b"\5"), ((8, 10), eps)]
    iptc = b"".join(bytes([0x1C, *tag]) + struct.pack(">H", len(held)) + held for tag, held in fields)
    for given_bytes in (eps, iptc):
        monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
        with pytest.raises((OSError, SyntaxError)), Image.open(io.BytesIO(given_bytes)) as image:
            image.load()
        assert started.exists()
        started.unlink()
        for suffix in ("png", "jpg", "eps"):
            with pytest.raises(UnreadableImage, match="is no image that Pillow can read"):
                decode(given_bytes, size=(8, 8), grayscale=False, path=Path(f"x.{suffix}"))
        assert not started.exists()


def test_the_formats_that_are_opened_are_those_that_have_a_suffix() -> None:
    """Under any name: a TIFF called .jpg is a picture, what no file of the list could be is none."""
    known = {Image.registered_extensions()[suffix] for suffix in suffixes()}
    assert known - {"MPO"} == {*formats()}
    tiff = encoded(picture(1), "TIFF")
    assert decode(tiff, size=(8, 8), grayscale=False, path=Path("x.jpg")).shape == (3, 8, 8)


def test_files_that_can_not_be_opened_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing, empty, huge, special, linked to nowhere, or named in another encoding; pipes are not waited for."""
    paths = {name: tmp_path / name for name in ("gone", "empty", "huge", "pipe", "link", "folder")}
    paths["device"], paths["name"] = Path("/dev/zero"), tmp_path / os.fsdecode(b"gar\xe7on.png")
    for name in ("empty", "name"):
        paths[name].touch()
    with paths["huge"].open("wb") as file:
        file.truncate(2**31)  # of which nothing is on the disk
    os.mkfifo(paths["pipe"])
    paths["link"].symlink_to("link")
    paths["folder"].mkdir()
    reasons = {}
    for name, path in paths.items():
        with pytest.raises(UnreadableImage) as caught:
            content(path)
        reasons[name] = caught.value.reason
        assert pickle.loads(pickle.dumps(caught.value)).reason == caught.value.reason
    assert reasons == {
        "gone": "can't be read (No such file or directory)",
        "empty": "is empty",
        "huge": "is larger than 1 GiB",
        "pipe": "is a pipe, socket or device, not an image",
        "device": "is a pipe, socket or device, not an image",
        "link": "is a link that leads nowhere or in a circle",
        "folder": "is a folder, not an image",
        "name": "is named in another encoding than UTF-8: rename it",
    }


@given(count=st.integers(1, 30))
def test_all_broken_files_are_listed_up_to_ten(count: int) -> None:
    """The others are counted."""
    with pytest.raises(BadInput) as caught:
        refuse([UnreadableImage(Path(f"{index}.png"), "is empty") for index in range(count)])
    sentence = str(caught.value)
    assert sentence.count("is empty") == min(count, 10)
    assert (f"and {count - 10} more" in sentence) == (count > 10)
    assert sentence.endswith("mend or remove it" if count == 1 else "mend or remove them")


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
    assert "object at 0x" not in told
    assert shape == (3, 8, 8)
