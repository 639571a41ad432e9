"""Official files are read only if they are the official ones; generated files of the same form stand in for them."""

import gzip
import hashlib
import io
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from generalist.config.section import plugin
from generalist.data import Source, load, prepare
from generalist.errors import BadInput
from generalist.torchvision_compat import torchvision

READERS = {
    "cifar10": torchvision.datasets.CIFAR10,
    "cifar100": torchvision.datasets.CIFAR100,
    "svhn": torchvision.datasets.SVHN,
    "fashion_mnist": torchvision.datasets.FashionMNIST,
}
EACH = 4  # images of each class in each file
Pixels = dict[str, np.ndarray]


def source(name: str, path: Path | str, **options: Any) -> Source:
    """Options of a source."""
    made = plugin("data.sources", {"name": name, "path": str(path), **options})
    assert isinstance(made, Source)
    return made


def md5(content: bytes) -> str:
    """MD5 (hex)."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def noise(seed: int, *shape: int) -> np.ndarray:
    """Random uint8 pixels."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def cifar_files(reader: Any, classes: int, key: str) -> tuple[dict[str, bytes], Pixels]:
    """Files in the form of CIFAR, and what should be read from them."""
    files, rows, labels = {}, [], list(range(classes)) * EACH
    for seed, (name, _) in enumerate(reader.train_list + reader.test_list):
        rows.append(noise(seed, len(labels), 3072))
        files[name] = pickle.dumps({"data": rows[-1], key: labels})
    files[reader.meta["filename"]] = pickle.dumps({reader.meta["key"]: [f"class {k}" for k in range(classes)]})
    images = np.concatenate(rows).reshape(-1, 3, 32, 32)
    return files, {"train": images[: -len(labels)], "test": images[-len(labels) :]}


def svhn_files() -> tuple[dict[str, bytes], Pixels]:
    """Files in the form of SVHN, whose label of the digit 0 is 10."""
    files, pixels = {}, {}
    labels = np.array(([10, *range(1, 10)]) * EACH, dtype=np.uint8)[:, None]
    for seed, part in enumerate(("train", "test")):
        pixels[part] = noise(seed, len(labels), 3, 32, 32)
        buffer = io.BytesIO()
        scipy.io.savemat(buffer, {"X": pixels[part].transpose(2, 3, 1, 0), "y": labels})
        files[f"{part}_32x32.mat"] = buffer.getvalue()
    return files, pixels


def fashion_files() -> tuple[dict[str, bytes], Pixels]:
    """Files in the form of Fashion-MNIST."""
    files, pixels = {}, {}
    for seed, (part, name) in enumerate((("train", "train"), ("test", "t10k"))):
        pixels[part] = noise(seed, 10 * EACH, 1, 28, 28)
        labels = bytes(range(10)) * EACH
        images = struct.pack(">4I", 0x0803, 10 * EACH, 28, 28) + pixels[part].tobytes()
        files[f"{name}-images-idx3-ubyte.gz"] = gzip.compress(images)
        files[f"{name}-labels-idx1-ubyte.gz"] = gzip.compress(struct.pack(">2I", 0x0801, len(labels)) + labels)
    return files, pixels


def stand_in(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Pixels:
    """Write generated files to where torchvision puts the official ones, and list their MD5 as the official."""
    reader = READERS[name]
    if name.startswith("cifar"):
        key, classes = ("labels", 10) if name == "cifar10" else ("fine_labels", 100)
        files, pixels = cifar_files(reader, classes, key)
        for kind in ("train_list", "test_list"):
            monkeypatch.setattr(reader, kind, [[n, md5(files[n])] for n, _ in getattr(reader, kind)])
        monkeypatch.setattr(reader, "meta", {**reader.meta, "md5": md5(files[reader.meta["filename"]])})
        folder = folder / reader.base_folder
    elif name == "svhn":
        files, pixels = svhn_files()
        listed = {k: [url, n, md5(files[n])] for k, (url, n, _) in reader.split_list.items() if n in files}
        monkeypatch.setattr(reader, "split_list", listed)
    else:
        files, pixels = fashion_files()
        monkeypatch.setattr(reader, "resources", [(n, md5(files[n])) for n, _ in reader.resources])
        folder = folder / "FashionMNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    return pixels


@pytest.mark.parametrize("name", READERS)
def test_files_of_the_official_form_are_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images arrive bit for bit and in order, NCHW, with labels from 0 and the source's own test split."""
    pixels = stand_in(name, tmp_path, monkeypatch)
    raw = source(name, tmp_path).read(Path("/nowhere"))
    classes = 100 if name == "cifar100" else 10
    for part, split in (("train", raw.train), ("test", raw.test)):
        assert np.array_equal(split.images, pixels[part])
        assert np.array_equal(split.labels, np.arange(len(split)) % classes)
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int64)
    assert len(raw.class_names) == classes
    manifest = prepare(source(name, tmp_path, validation=0.25), tmp_path / "prepared", root=tmp_path)
    assert np.array_equal(load(tmp_path / "prepared").test.images, pixels["test"])
    assert set(manifest.counts["validation"].values()) == {len(pixels["train"]) // classes // 4}


@pytest.mark.parametrize("name", ["cifar10", "fashion_mnist"])
def test_the_folder_of_the_files_may_be_named_itself(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder that holds the files, under any name, gives the same as the one above it."""
    stand_in(name, tmp_path, monkeypatch)
    above = source(name, tmp_path).read(tmp_path)
    folder = tmp_path / ("cifar-10-batches-py" if name == "cifar10" else "FashionMNIST/raw")
    folder.rename(tmp_path / "moved")
    itself = source(name, "moved").read(tmp_path)
    assert itself.checksum == above.checksum
    assert np.array_equal(itself.train.images, above.train.images)


@pytest.mark.parametrize("name", READERS)
def test_missing_files_are_told_and_nothing_is_fetched(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence says which files, where they were looked for, and how to get them."""
    monkeypatch.setattr(torchvision.datasets.utils, "download_url", None)  # calling it would fail otherwise
    with pytest.raises(BadInput, match=rf"of {name} not found in .*raw.*data\.download=true"):
        source(name, "raw").read(tmp_path)
    assert not list(tmp_path.iterdir())


def test_one_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of seven files the one that lacks is named alone."""
    stand_in("cifar10", tmp_path, monkeypatch)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").unlink()
    with pytest.raises(BadInput, match=r"^data_batch_3 of cifar10 not found in .*cifar-10-batches-py;"):
        source("cifar10", tmp_path).read(tmp_path)


@pytest.mark.parametrize("name", READERS)
def test_a_file_that_is_not_the_official_one_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One byte more, in any one of the files, and none is read."""
    stand_in(name, tmp_path, monkeypatch)
    for path in [path for path in tmp_path.rglob("*") if path.is_file()]:
        content = path.read_bytes()
        path.write_bytes(content + b"\0")
        with pytest.raises(BadInput, match=rf"{path.name} is not the official file of {name}"):
            source(name, tmp_path, download=True).read(tmp_path)
        path.write_bytes(content)


class Harmful:
    """Makes a folder when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("file", ["data_batch_1", "data_batch_5", "test_batch", "batches.meta"])
def test_a_forged_pickle_is_not_unpickled(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A harmful file among official ones does nothing, although unpickling it would."""
    stand_in("cifar10", tmp_path, monkeypatch)
    forged, mark = tmp_path / "cifar-10-batches-py" / file, tmp_path / "harm"
    forged.write_bytes(pickle.dumps(Harmful(mark)))
    with pytest.raises(BadInput, match=f"{file} is not the official file"):
        source("cifar10", tmp_path).read(tmp_path)
    assert not mark.exists()
    pickle.loads(forged.read_bytes())
    assert mark.exists()


def test_torchvision_s_pickled_copy_of_fashion_mnist_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `processed/training.pt` of an older torchvision, which its reader would prefer, is not looked at."""
    pixels = stand_in("fashion_mnist", tmp_path, monkeypatch)
    processed = tmp_path / "FashionMNIST" / "processed"
    processed.mkdir()
    for name in ("training.pt", "test.pt"):
        (processed / name).write_bytes(pickle.dumps(Harmful(tmp_path / "harm")))
    assert np.array_equal(source("fashion_mnist", tmp_path).read(tmp_path).test.images, pixels["test"])
    assert not (tmp_path / "harm").exists()


def test_the_official_cifar_10() -> None:
    """The arrays are those that torchvision, RobustBench and AutoAttack see, in their order."""
    folder = os.environ.get("GENERALIST_CIFAR10")
    if not folder or not any(Path(folder).rglob("data_batch_1")):
        pytest.skip("GENERALIST_CIFAR10 names no folder with the official CIFAR-10 files")
    raw = source("cifar10", Path(folder).absolute()).read(Path())
    found = {}
    for part, split in (("train", raw.train), ("test", raw.test)):
        found[f"x_{part}"] = split.images.transpose(0, 2, 3, 1).tobytes()
        found[f"y_{part}"] = split.labels.astype(np.uint8).tobytes()
    assert {name: hashlib.sha256(content).hexdigest() for name, content in found.items()} == {
        "x_train": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
        "x_test": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
        "y_train": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
        "y_test": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
    }
    assert raw.class_names == (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    )
