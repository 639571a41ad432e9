"""Laws of the source `folder`: class sub-folders of images."""

import io
import shutil
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
    """A folder of class sub-folders with lossless pictures, no two alike."""
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(each):
            Image.fromarray(picture(first_seed + 100 * label + index)).save(folder / name / f"{index}.png")
    return folder


def encoded(array: np.ndarray, kind: str) -> bytes:
    """The bytes of an image file."""
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


def test_hidden_files_links_and_other_files_are_not_read(tmp_path: Path) -> None:
    """What is not a visible, real image file with a known suffix changes nothing."""
    folder = fill(tmp_path / "raw")
    before = source(folder).read(tmp_path)
    (folder / ".cache").mkdir()
    (folder / "cat" / ".9.png").write_bytes(b"hidden")
    (folder / "cat" / "9.png").symlink_to(folder / "dog" / "0.png")
    (folder / "linked").symlink_to(folder / "dog")
    (folder / "cat" / "notes.txt").write_text("not an image")
    (folder / "notes.txt").write_text("not a class")
    after = source(folder).read(tmp_path)
    assert (after.class_names, after.checksum) == (before.class_names, before.checksum)
    assert np.array_equal(after.train.images, before.train.images)


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
    """A file cut short."""
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
    """A folder beside train and test."""
    fill(folder / "train")
    fill(folder / "test")
    fill(folder / "val")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
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
