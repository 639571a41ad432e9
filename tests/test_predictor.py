"""Prediction by an exported file: the right model, the right images, probabilities, and no torch."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from generalist.data.decoding import decode, refuse
from generalist.data.image_files import find
from generalist.data.sources import folder as folder_source
from generalist.errors import BadInput
from generalist.export import Prediction, Predictor
from generalist.export import predictor as predictor_module
from generalist.export.integrity import with_digests
from tests import onnx_models
from tests.onnx_models import CHANNELS, CLASSES, HEIGHT, WEIGHT, WIDTH

NAMES = ("cat", "dög", "owl", "yak")


def written(folder: Path, model: onnx.ModelProto, names: Any = NAMES) -> Path:
    """Return the model in a sealed file."""
    path = folder / "model.onnx"
    path.write_bytes(with_digests(model, {"class_names": json.dumps(names)}))
    return path


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    """For colour images."""
    return Predictor(written(tmp_path, onnx_models.linear()))


@pytest.fixture
def grey(tmp_path: Path) -> Predictor:
    """For images of one channel."""
    weight = WEIGHT[: HEIGHT * WIDTH]
    return Predictor(written(tmp_path, onnx_models.linear(weight=weight, shape=("batch", 1, HEIGHT, WIDTH))))


def pictures(count: int, seed: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> NDArray[np.uint8]:
    """Random 8-bit images, channels last."""
    return np.random.default_rng(seed).integers(0, 256, (count, *size, CHANNELS), dtype=np.uint8)


def as_input(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """As the model takes them."""
    return pictures.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)


@given(count=st.integers(0, 5), seed=st.integers(0, 99))
def test_probabilities_are_the_softmax_of_the_logits(
    count: int, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """They are positive, sum to one, and follow exp(logit), for any number of images, none included."""
    predictor = Predictor(written(tmp_path_factory.mktemp("model"), onnx_models.linear(weight=30 * WEIGHT)))
    images = as_input(pictures(count, seed))
    found = predictor.predict(images)
    logits = images.reshape(count, onnx_models.PIXELS).astype(np.float64) @ (30 * WEIGHT.astype(np.float64))
    expected = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    expected /= expected.sum(axis=1, keepdims=True)
    assert found.shape == (count, CLASSES)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def predict_files(predictor: Predictor, paths: list[Path]) -> list[Prediction]:
    """Return all predictions, or raise what is wrong with some images, in one sentence."""
    said = list(predictor.predict_each(paths))
    if unreadable := [one for one in said if not isinstance(one, Prediction)]:
        refuse(unreadable)
    return [one for one in said if isinstance(one, Prediction)]


def test_image_files_give_what_their_pixels_give(predictor: Predictor, tmp_path: Path) -> None:
    """A lossless file of the model's size is predicted as the array in it; the best class has the best probability."""
    shots = pictures(3)
    files = [tmp_path / f"{index}.png" for index in range(3)]
    for file, shot in zip(files, shots, strict=True):
        Image.fromarray(shot).save(file)
    rows = predictor.predict(as_input(shots))
    predictions = predict_files(predictor, files)
    assert [prediction.file for prediction in predictions] == files
    for prediction, row in zip(predictions, rows, strict=True):
        np.testing.assert_allclose(prediction.probabilities, row, rtol=1e-6)
        assert prediction.probability == max(prediction.probabilities)
        assert prediction.class_name == NAMES[int(row.argmax())]


def test_folders_are_searched_in_the_order_of_names(predictor: Predictor, tmp_path: Path) -> None:
    """Images at any depth are found by their suffix, hidden files and other files are left alone."""
    folder = tmp_path / "pictures"
    names = ["a/z.png", "b.JPG", "c/d/e.bmp", "c/f.webp"]
    for name in [*names, "c/.hidden.png"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pictures(1)[0]).save(folder / name)
    (folder / "notes.txt").write_text("no image", encoding="utf-8")
    found = predict_files(predictor, [folder / "c", folder])
    assert [p.file.relative_to(folder).as_posix() for p in found] == ["c/d/e.bmp", "c/f.webp", *names]
    assert predict_files(predictor, []) == []


def listed_by_prepare(folder: Path) -> dict[str, list[Path]]:
    """Return the images of a folder by class, as the source `folder` takes them."""
    return folder_source._classes(find(folder), ())


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "CMYK", "I;16", "turned"])
@pytest.mark.parametrize("channels", [1, 3])
def test_files_are_decoded_as_training_images_are(
    mode: str, channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every mode, size and orientation, the model sees the pixels that `prepare` would have written."""
    weight = WEIGHT[: channels * HEIGHT * WIDTH]
    model = onnx_models.linear(weight=weight, shape=("batch", channels, HEIGHT, WIDTH))
    predictor = Predictor(written(tmp_path, model))
    image, exif, file = Image.fromarray(pictures(1, size=(13, 9))[0]), Image.Exif(), tmp_path / "image.tiff"
    if mode == "turned":
        exif[0x0112] = 6  # the tag of the orientation: a quarter turn
        file = tmp_path / "image.jpeg"  # Pillow turns TIFF itself
    if mode == "I;16":
        image = Image.fromarray(np.random.default_rng(0).integers(0, 2**16, (13, 9), dtype=np.uint16))
    image.convert("RGB" if mode == "turned" else mode).save(file, exif=exif)
    seen: list[NDArray[np.float32]] = []

    def predict(images: NDArray[np.float32]) -> NDArray[np.float32]:
        seen.append(images)
        return np.eye(1, CLASSES, dtype=np.float32)

    monkeypatch.setattr(predictor, "predict", predict)
    predict_files(predictor, [file])
    expected = decode(file.read_bytes(), size=(HEIGHT, WIDTH), grayscale=channels == 1, path=file)
    np.testing.assert_array_equal(seen[0], expected[None].astype(np.float32) / np.float32(255))


def test_unreadable_files_are_named(predictor: Predictor, tmp_path: Path) -> None:
    """A missing, damaged or other file, or a folder without images, is refused by name; all broken ones at once."""
    damaged, text, empty = tmp_path / "damaged.png", tmp_path / "text.png", tmp_path / "empty.png"
    Image.fromarray(pictures(1, size=(50, 50))[0]).save(damaged)
    damaged.write_bytes(damaged.read_bytes()[:300])
    text.write_text("no image", encoding="utf-8")
    empty.touch()
    with pytest.raises(BadInput, match=r"there is no .*none\.png, no .*nor\.png: name images"):
        predict_files(predictor, [tmp_path / "none.png", damaged, tmp_path / "nor.png"])
    with pytest.raises(BadInput, match=r"damaged\.png can't be read as an image \(.*\); mend or remove it"):
        predict_files(predictor, [damaged])
    listed = r"^3 images can't be read: .*damaged\.png can't .*text\.png is no image.*empty\.png is empty; mend"
    with pytest.raises(BadInput, match=listed):
        predict_files(predictor, [damaged, text, empty])
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "photo.heic").touch()
    with pytest.raises(BadInput, match=r"folder .*folder holds no images \(left out: 1 file .*\(\.heic\)\): name"):
        predict_files(predictor, [tmp_path / "folder"])


def test_images_come_in_tiles(predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Predictions are given before later files are read, as for all at once; broken files are given between them."""
    monkeypatch.setattr(predictor_module, "TILE", 3)
    shots = pictures(8)
    for index, shot in enumerate(shots):
        Image.fromarray(shot).save(tmp_path / f"{index}.png")
    (tmp_path / "4.png").write_bytes(b"")
    each = predictor.predict_each([tmp_path])
    first = [next(each) for _ in range(3)]
    (tmp_path / "7.png").write_bytes(b"broken since")
    said = [*first, *each]
    assert [one for one in said if isinstance(one, Prediction)] == predict_files(
        predictor, [tmp_path / f"{index}.png" for index in (0, 1, 2, 3, 5, 6)]
    )
    assert [str(one).split()[0] for one in said if isinstance(one, BadInput)] == [
        str(tmp_path / "4.png"),
        str(tmp_path / "7.png"),
    ]


def test_no_more_than_a_tile_is_in_memory(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many files there are."""
    Image.fromarray(pictures(1)[0]).save(tmp_path / "a.png")
    asked: list[int] = []

    def predict(images: NDArray[np.float32]) -> NDArray[np.float32]:
        asked.append(len(images))
        return np.full((len(images), CLASSES), 0.25, dtype=np.float32)

    monkeypatch.setattr(predictor, "predict", predict)
    assert sum(1 for _ in predictor.predict_each([tmp_path / "a.png"] * 150)) == 150
    assert asked == [64, 64, 22]


def test_the_same_files_as_by_prepare_in_the_same_order(predictor: Predictor, tmp_path: Path) -> None:
    """Nested, linked and hidden ones, and any suffix."""
    raw = tmp_path / "raw"
    for name in ["b/1.png", "a/s/2.jfif", "a/s.png", "a/.h/3.png", "b/é.tga", "a/B.PNG"]:
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pictures(1)[0]).save(raw / name, "TGA" if name.endswith("tga") else "PNG")
    (raw / "c").symlink_to(raw / "b")
    (raw / "a" / "up").symlink_to(raw)
    expected = [f"{file.relative_to(raw)}" for files in listed_by_prepare(raw).values() for file in files]
    assert [str(one.file.relative_to(raw)) for one in predict_files(predictor, [raw])] == expected
    assert expected == ["a/B.PNG", "a/s/2.jfif", "a/s.png", "b/1.png", "b/é.tga", "c/1.png", "c/é.tga"]


def test_what_is_left_out_is_logged(predictor: Predictor, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One sentence for a folder."""
    Image.fromarray(pictures(1)[0]).save(tmp_path / "a.png")
    (tmp_path / "notes.txt").touch()
    predict_files(predictor, [tmp_path])
    (record,) = [record for record in caplog.records if record.name == "generalist"]
    assert "left out 1 file that is no image" in record.getMessage() or "left out 2 files" in record.getMessage()


def test_damaged_bytes_of_any_kind_are_named(grey: Predictor, tmp_path: Path) -> None:
    """Whatever a decoder raises for flipped bytes, the file is named; what can be read is predicted."""
    file, outcomes = tmp_path / "image.png", set()
    Image.fromarray(pictures(1, size=(9, 9))[0]).save(file)
    content = file.read_bytes()
    for offset in range(len(content)):
        changed = bytearray(content)
        changed[offset] ^= 0xFF
        file.write_bytes(changed)
        try:
            outcomes.add(len(predict_files(grey, [file])))
        except BadInput as error:
            outcomes.add("image.png" in str(error))
    assert outcomes <= {1}
    assert True in outcomes


def test_files_have_one_or_three_channels(tmp_path: Path) -> None:
    """A model of two channels can be asked for arrays alone."""
    weight = WEIGHT[: 2 * HEIGHT * WIDTH]
    predictor = Predictor(written(tmp_path, onnx_models.linear(weight=weight, shape=("batch", 2, HEIGHT, WIDTH))))
    Image.fromarray(pictures(1)[0]).save(tmp_path / "image.png")
    with pytest.raises(BadInput, match="takes 2 channels, and image files have 1 or 3"):
        predict_files(predictor, [tmp_path / "image.png"])
    assert predictor.predict(np.zeros((1, 2, HEIGHT, WIDTH), dtype=np.float32)).shape == (1, CLASSES)


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (
            np.zeros((2, 3, 4, 4), dtype=np.float32),
            r"takes images float32 \['n', 3, 4, 5\], found float32 \[2, 3, 4, 4\]",
        ),
        (np.zeros((2, 1, 4, 5), dtype=np.float32), r"found float32 \[2, 1, 4, 5\]"),
        (np.full((1, 3, 4, 5), 1.01, dtype=np.float32), r"pixels must lie in \[0, 1\]"),
        (np.full((1, 3, 4, 5), -0.01, dtype=np.float32), r"pixels must lie in \[0, 1\]"),
        (np.full((1, 3, 4, 5), np.nan, dtype=np.float32), r"pixels must lie in \[0, 1\], found \[nan, nan\]"),
    ],
)
def test_other_images_are_refused(predictor: Predictor, images: NDArray[np.float32], sentence: str) -> None:
    """Shape and range are checked at the border."""
    with pytest.raises(BadInput, match=sentence):
        predictor.predict(images)


@pytest.mark.parametrize("names", [["cat"], "cats", {"a": 1}, None])
def test_classes_must_be_named(names: Any, tmp_path: Path) -> None:
    """Names that are missing, or too few, are refused when the model is loaded."""
    with pytest.raises(BadInput, match="doesn't name its 4 classes"):
        Predictor(written(tmp_path, onnx_models.linear(), names))
    (tmp_path / "model.onnx").write_bytes(with_digests(onnx_models.linear(), {}))
    with pytest.raises(BadInput, match="doesn't name its 4 classes"):
        Predictor(tmp_path / "model.onnx")


def test_prediction_needs_no_torch(tmp_path: Path, root: Path) -> None:
    """A process that predicts has not imported torch, nor scipy for intervals that it doesn't show."""
    path = written(tmp_path, onnx_models.linear())
    Image.fromarray(pictures(1)[0]).save(tmp_path / "image.png")
    script = (
        "import sys; from pathlib import Path; from generalist.export import Predictor, read_metadata, verify\n"
        f"print(len(list(Predictor(Path({str(path)!r})).predict_each([Path({str(tmp_path / 'image.png')!r})]))))\n"
        "print(sorted({'torch', 'scipy', 'onnxscript'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False)
    assert (done.stdout.split("\n"), done.stderr) == (["1", "[]", ""], "")
