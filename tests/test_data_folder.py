"""Laws of the source `folder`: class sub-folders of images."""

import io
import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from generalist.config.section import plugin
from generalist.data import Source, load, prepare
from generalist.errors import BadInput

CLASSES = ("cat", "dog", "emu")


def source(path: Path | str, **options: Any) -> Source:
    """Options of the source `folder`, 8 × 8 unless told."""
    made = plugin("data.sources", {"name": "folder", "path": str(path), "size": 8, **options})
    assert isinstance(made, Source)
    return made


def picture(seed: int, *, side: int = 8) -> np.ndarray:
    """Random RGB pixels: uint8 [side, side, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def fill(folder: Path, *, classes: tuple[str, ...] = CLASSES, each: int = 6, first_seed: int = 0) -> Path:
    """Fill a folder with class sub-folders of lossless pictures, no two alike."""
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(each):
            Image.fromarray(picture(first_seed + 100 * label + index)).save(folder / name / f"{index}.png")
    return folder


def encoded(array: np.ndarray, kind: str) -> bytes:
    """Return the bytes of an image file."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def test_every_image_is_in_one_split_under_its_class(tmp_path: Path) -> None:
    """Lossless images of the right size arrive bit for bit, each once, labelled by its sub-folder."""
    fill(tmp_path / "raw")
    prepare(source("raw", validation=0.25), tmp_path / "data", root=tmp_path)
    data = load(tmp_path / "data")
    assert data.class_names == CLASSES
    assert (len(data.train), len(data.validation), len(data.test)) == (10, 4, 4)
    found = sorted(
        (image.tobytes(), int(label))
        for split in (data.train, data.validation, data.test)
        for image, label in zip(split.images, split.labels, strict=True)
    )
    expected = sorted(
        (picture(100 * label + index).transpose(2, 0, 1).tobytes(), label) for label in range(3) for index in range(6)
    )
    assert found == expected


def test_own_train_and_test_folders_are_kept_apart(tmp_path: Path) -> None:
    """With `train/` and `test/`, the test split is the images of `test/`, in the order of class and file name."""
    fill(tmp_path / "raw" / "train")
    fill(tmp_path / "raw" / "test", each=2, first_seed=1000)
    raw = source("raw").read(tmp_path)
    assert raw.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    expected = [picture(1000 + 100 * label + index).transpose(2, 0, 1) for label in range(3) for index in range(2)]
    assert np.array_equal(raw.test.images, np.stack(expected))
    assert len(raw.train) == 18


def test_the_checksum_is_over_names_and_bytes(tmp_path: Path) -> None:
    """A copy elsewhere has the same checksum; a renamed or changed file gives another."""
    fill(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")

    def checksum() -> str:
        return source("two").read(tmp_path).checksum

    first = source("one").read(tmp_path).checksum
    assert checksum() == first
    (tmp_path / "two/cat/0.png").rename(tmp_path / "two/cat/00.png")
    renamed = checksum()
    (tmp_path / "two/cat/00.png").write_bytes(encoded(picture(77), "PNG"))
    assert len({first, renamed, checksum()}) == 3


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """Return the one sentence that was logged."""
    (record,) = [record for record in caplog.records if record.name == "generalist"]
    return record.getMessage()


def test_what_is_left_out_changes_nothing_and_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Hidden files, pipes, other files, loose images: one sentence by number and kind."""
    folder = fill(tmp_path / "raw")
    before = source(folder).read(tmp_path)
    assert not caplog.records
    (folder / ".cache").mkdir()
    (folder / "cat" / ".9.png").write_bytes(b"hidden")
    (folder / "cat" / "notes.txt").write_text("not an image")
    (folder / "notes.txt").write_text("not a class")
    (folder / "loose.png").write_bytes(b"in no class")
    (folder / "dog" / "photo.HEIC").write_bytes(b"not by Pillow")
    (folder / "dog" / "up").symlink_to(folder)
    os.mkfifo(folder / "dog" / "pipe.png")
    after = source(folder).read(tmp_path)
    assert (after.class_names, after.checksum) == (before.class_names, before.checksum)
    assert np.array_equal(after.train.images, before.train.images)
    assert logged(caplog) == (
        f"{folder}: left out 2 hidden files or folders, 1 link back to a folder that it lies in, 1 pipe, socket or"
        " device, 1 image outside of class folders, 3 files that are no images for Pillow (2 .txt, 1 .heic)"
    )


def test_a_folder_of_links_is_as_its_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As `dvc checkout` makes it with `cache.type symlink`: bit for bit the same, and the links are counted."""
    before = source(fill(tmp_path / "raw")).read(tmp_path)
    cache = tmp_path / ".dvc" / "cache"
    cache.mkdir(parents=True)
    for number, file in enumerate(sorted((tmp_path / "raw").rglob("*.png"))):
        file.rename(cache / str(number))
        file.symlink_to(cache / str(number))
    (tmp_path / "raw" / "emu").rename(tmp_path / "emu")
    (tmp_path / "raw" / "emu").symlink_to(tmp_path / "emu")
    after = source("raw").read(tmp_path)
    assert (after.class_names, after.checksum) == (before.class_names, before.checksum)
    assert np.array_equal(after.test.images, before.test.images)
    assert logged(caplog).endswith("raw: 19 links out of it, which were read")


def test_nested_folders_belong_to_their_class(tmp_path: Path) -> None:
    """The class is the first folder, the order that of the whole names."""
    fill(tmp_path / "raw" / "train")
    fill(tmp_path / "raw" / "test", each=3)
    for name in ("a/b", "2"):
        (tmp_path / "raw" / "test" / "cat" / name).mkdir(parents=True)
    (tmp_path / "raw" / "test" / "cat" / "1.png").rename(tmp_path / "raw" / "test" / "cat" / "a" / "b" / "0.png")
    (tmp_path / "raw" / "test" / "cat" / "0.png").rename(tmp_path / "raw" / "test" / "cat" / "2" / "z.PNG")
    raw = source("raw").read(tmp_path)
    assert raw.test.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    expected = [picture(seed).transpose(2, 0, 1) for seed in (0, 2, 1)]  # 2/z.PNG, 2.png, a/b/0.png
    assert np.array_equal(raw.test.images[:3], np.stack(expected))


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".TGA", ".jp2", ".avif", ".ico", ".apng", ".dib"])
def test_every_format_of_pillow_is_read(tmp_path: Path, suffix: str) -> None:
    """By suffix, in small letters or capitals."""
    folder = fill(tmp_path / "raw")
    for file in (folder / "cat").iterdir():
        Image.fromarray(picture(0, side=16)).save(file.with_suffix(suffix))
        file.unlink()
    raw = source(folder).read(tmp_path)
    assert (len(raw.train) + len(raw.test), raw.class_names) == (18, CLASSES)


def test_names_are_compared_in_their_composed_form(tmp_path: Path) -> None:
    """One class in two spellings of Unicode, as file systems give them; the checksum is the same, too."""
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    fill(tmp_path / "one" / "train", classes=(composed, "zoo"))
    fill(tmp_path / "one" / "test", classes=(composed, "zoo"))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    (tmp_path / "two" / "test" / composed).rename(tmp_path / "two" / "test" / decomposed)
    one, two = (source(name).read(tmp_path) for name in ("one", "two"))
    assert two.class_names == (composed, "zoo")
    assert one.checksum == two.checksum
    assert np.array_equal(one.test.images, two.test.images)


def test_all_broken_files_are_listed(tmp_path: Path) -> None:
    """Of training and of test, by what is wrong with each."""
    fill(tmp_path / "raw" / "train")
    fill(tmp_path / "raw" / "test")
    for name, content in {"train/cat/0.png": b"", "train/dog/1.png": b"text", "test/emu/2.png": b"<html>"}.items():
        (tmp_path / "raw" / name).write_bytes(content)
    (tmp_path / "raw" / "test" / "emu" / "9.png").symlink_to("nowhere")
    (tmp_path / "raw" / "test" / "cat" / os.fsdecode(b"gar\xe7on.png")).touch()
    with pytest.raises(BadInput) as caught:
        prepare(source("raw"), tmp_path / "data", root=tmp_path)
    sentence = str(caught.value)
    assert sentence.startswith("5 images can't be read: ")
    for told in (
        "train/cat/0.png is empty,",
        "train/dog/1.png is no image",
        "test/emu/2.png is no image",
        "test/emu/9.png is a link that leads nowhere",
        r"test/cat/gar\xe7on.png is named in another encoding than UTF-8",
    ):
        assert told in sentence
    assert "object at" not in sentence


def test_warnings_of_pillow_are_one_sentence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten files by name, and the number of the others."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    source(fill(tmp_path / "raw")).read(tmp_path)
    assert "cat/0.png (Image size (64 pixels)" in logged(caplog)
    assert logged(caplog).endswith("and 8 more")


def test_images_of_16_bits_are_read(tmp_path: Path) -> None:
    """Their upper 8 bits."""
    folder = fill(tmp_path / "raw")
    deep = np.full((8, 8), 40_000, dtype=np.uint16)
    for number in range(6):
        (folder / "cat" / f"{number}.png").write_bytes(encoded(deep, "PNG"))
    raw = source(folder, grayscale=True).read(tmp_path)
    assert set(np.unique(raw.train.images[raw.train.labels == 0])) == {156}


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "GIF", "WEBP", "JPEG", "TIFF"])
@pytest.mark.parametrize(
    ("size", "grayscale", "shape"), [(5, False, (3, 5, 5)), ([4, 6], False, (3, 4, 6)), ([4, 6], True, (1, 4, 6))]
)
def test_images_are_resized_and_given_their_channels(
    tmp_path: Path, kind: str, size: int | list[int], grayscale: bool, shape: tuple[int, ...]
) -> None:
    """Every format becomes uint8 [channels, height, width]; an even surface keeps its colour."""
    folder = tmp_path / "raw"
    for index in range(8):
        path = folder / CLASSES[index % 2] / f"{index}.{kind.lower()}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(np.full((16, 16, 3), (200, 100, 40), dtype=np.uint8), kind))
    raw = source(folder, size=size, grayscale=grayscale).read(tmp_path)
    assert raw.train.images.shape[1:] == shape
    expected = [round(0.299 * 200 + 0.587 * 100 + 0.114 * 40)] if grayscale else [200, 100, 40]
    tolerance = 6 if kind in {"JPEG", "WEBP", "GIF"} else 1
    assert np.abs(raw.train.images.astype(int) - np.array(expected)[:, None, None]).max() <= tolerance


def empty(folder: Path) -> None:
    """Nothing at all."""
    folder.mkdir()


def images_without_classes(folder: Path) -> None:
    """Images, but not in sub-folders."""
    fill(folder, classes=("cat",))
    for path in (folder / "cat").iterdir():
        path.rename(folder / path.name)
    (folder / "cat").rmdir()


def one_class(folder: Path) -> None:
    """Only cats."""
    fill(folder, classes=("cat",))


def empty_class(folder: Path) -> None:
    """No emus."""
    fill(folder)
    shutil.rmtree(folder / "emu")
    (folder / "emu").mkdir()


def broken_image(folder: Path) -> None:
    """Cut a file short."""
    path = fill(folder) / "dog" / "3.png"
    path.write_bytes(path.read_bytes()[:60])


def two_emus(folder: Path) -> None:
    """Two images can't be in three splits."""
    fill(folder)
    for index in range(2, 6):
        (folder / "emu" / f"{index}.png").unlink()


def one_emu(folder: Path) -> None:
    """One image can't be in two splits."""
    two_emus(folder)
    (folder / "emu" / "1.png").unlink()


def class_not_in_test(folder: Path) -> None:
    """Emus to learn, none to test."""
    fill(folder / "train")
    fill(folder / "test", classes=CLASSES[:2])


def class_only_in_test(folder: Path) -> None:
    """Emus to test, none to learn."""
    fill(folder / "train", classes=CLASSES[:2])
    fill(folder / "test")


def third_folder(folder: Path) -> None:
    """Add a folder beside train and test."""
    fill(folder / "train")
    fill(folder / "test")
    fill(folder / "val")


def class_in_another_encoding(folder: Path) -> None:
    """As from an old Windows."""
    fill(folder, classes=("cat", os.fsdecode(b"gar\xe7on")))


def one_class_spelt_twice(folder: Path) -> None:
    """Composed and decomposed side by side."""
    fill(folder, classes=("cat", "caf\u00e9", "cafe\u0301"))


def one_image_spelt_twice(folder: Path) -> None:
    """Composed and decomposed side by side."""
    for name in ("\u00e9.png", "e\u0301.png"):
        shutil.copy((fill(folder) if not folder.exists() else folder) / "cat" / "0.png", folder / "cat" / name)


def other_names_of_splits(folder: Path) -> None:
    """Now that nested folders are read, these would become classes."""
    fill(folder / "Train")
    fill(folder / "val")


def only_photos_of_phones(folder: Path) -> None:
    """Which Pillow can't read here."""
    fill(folder)
    for path in (folder / "dog").iterdir():
        path.rename(path.with_suffix(".heic"))


def only_a_loop(folder: Path) -> None:
    """Links in a circle, and no images."""
    folder.mkdir()
    (folder / "a").symlink_to(folder)
    (folder / "b").symlink_to(folder / "c")
    (folder / "c").symlink_to(folder / "b")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (class_in_another_encoding, r"raw/gar\\xe7on is named in another encoding than UTF-8; rename it"),
        (one_class_spelt_twice, "raw holds 'café' twice, .*; merge or rename them"),
        (one_image_spelt_twice, r"cat holds 'é\.png' twice, .*; merge or rename them"),
        (other_names_of_splits, "holds 'Train' and 'val', which look like splits"),
        (only_photos_of_phones, r"class folder .*dog holds no images \(left out: 6 files .* \(\.heic\)\)"),
        (
            only_a_loop,
            r"holds no images in class sub-folders \(left out: 2 links that lead nowhere or in a circle, 1 link back",
        ),
        (lambda _: None, "raw is not a folder"),
        (lambda folder: folder.write_text("a file"), "raw is not a folder"),
        (empty, "raw holds no images in class sub-folders"),
        (images_without_classes, "raw holds no images in class sub-folders"),
        (one_class, "only one class, 'cat'"),
        (empty_class, "class folder .*emu holds no images"),
        (broken_image, r"dog/3\.png can't be read as an image"),
        (one_emu, r"class 'emu' has 1 images, too few .* data\.test"),
        (two_emus, r"class 'emu' has \d images, too few .* data\.(test|validation)"),
        (third_folder, "holds 'val' beside train and test"),
        (class_not_in_test, "class 'emu' is in .*train but not in .*test"),
        (class_only_in_test, "class 'emu' is in .*test but not in .*train"),
    ],
)
def test_a_folder_that_can_not_be_used_is_told(tmp_path: Path, make: Callable[[Path], object], sentence: str) -> None:
    """One sentence says what is wrong, and nothing is written."""
    make(tmp_path / "raw")
    with pytest.raises(BadInput, match=sentence) as caught:
        prepare(source("raw"), tmp_path / "data", root=tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()
