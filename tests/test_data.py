"""Laws of `prepare` and `load`."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from generalist.config import DataOptions, canonical, digest
from generalist.config.section import plugin
from generalist.data import Manifest, Source, SourceData, Split, load, prepare, request_digest
from generalist.data.manifest import ARRAYS, MANIFEST, digest_of_content, digest_of_test
from generalist.data.preparation import pixel_moments
from generalist.errors import BadInput

ROOT = Path()  # neither digits nor the pretended source below read files


class Pretended(Source):
    """Ten images of two classes, all pixels at `level`."""

    name: Literal["pretended"] = "pretended"
    level: int = 7
    rare: int = 5

    def read(self, root: Path) -> SourceData:
        """Constant images; `rare` of ten are of the second class."""
        images = np.full((10, 1, 4, 6), self.level, dtype=np.uint8)
        split = Split(images, (np.arange(10) < self.rare).astype(np.int64))
        return SourceData(split, split, ("no", "yes"), "pretended", "0" * 64)


def digits(**options: Any) -> DataOptions:
    """Options of the source `digits`."""
    options = plugin("data.sources", {"name": "digits", **options})
    assert isinstance(options, DataOptions)
    return options


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits with default options."""
    folder = tmp_path_factory.mktemp("data") / "prepared"
    prepare(digits(), folder, root=ROOT)
    return folder


def test_digits_are_the_library_s_images_in_three_disjoint_splits(prepared: Path) -> None:
    """Together the splits hold each of the 1,797 images once, with sixteen steps of grey stretched to 0..255."""
    from sklearn.datasets import load_digits

    data, source = load(prepared), load_digits()
    assert (len(data.train), len(data.validation), len(data.test)) == (1077, 270, 450)
    assert data.class_names == tuple("0123456789")
    assert (data.shape.channels, data.shape.height, data.shape.width, data.shape.classes) == (1, 8, 8, 10)

    grey = {value: round(value * 255 / 16) for value in range(17)}
    expected = sorted(
        (bytes(grey[int(v)] for v in image.ravel()), int(label))
        for image, label in zip(source.images, source.target, strict=True)
    )
    found = sorted(
        (image.tobytes(), int(label))
        for split in (data.train, data.validation, data.test)
        for image, label in zip(split.images, split.labels, strict=True)
    )
    assert found == expected


def test_splits_are_stratified(prepared: Path) -> None:
    """Each class has its share of each split, to one image."""
    counts = Manifest.read(prepared).counts
    for name in counts["train"]:
        total = sum(counts[split][name] for split in counts)
        assert abs(counts["test"][name] - 0.25 * total) <= 1
        assert abs(counts["validation"][name] - 0.2 * (total - counts["test"][name])) <= 1


def test_labels_and_images_are_typed_and_read_only(prepared: Path) -> None:
    """uint8 NCHW images and int64 labels, mapped from disk so that nobody can change them by accident."""
    split = load(prepared).train
    assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int64)
    assert split.images.shape == (1077, 1, 8, 8)
    assert isinstance(split.images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        split.images[0] = 0


def test_the_same_options_give_the_same_bytes(prepared: Path, tmp_path: Path) -> None:
    """Nothing in the folder depends on when or where it was written."""
    prepare(digits(), tmp_path / "again", root=tmp_path)
    assert contents(tmp_path / "again") == contents(prepared)


def test_the_seed_moves_both_splits_and_the_validation_share_only_one(prepared: Path, tmp_path: Path) -> None:
    """Another `data.seed` draws another test split; another validation share leaves the test split alone."""
    reseeded = prepare(digits(seed=1), tmp_path / "reseeded", root=ROOT)
    resized = prepare(digits(validation=0.1), tmp_path / "resized", root=ROOT)
    first = Manifest.read(prepared)
    assert reseeded.test_digest != first.test_digest
    assert reseeded.files["validation_images.npy"] != first.files["validation_images.npy"]
    assert resized.test_digest == first.test_digest
    assert resized.digest != first.digest


def test_the_manifest_tells_what_lies_there(prepared: Path) -> None:
    """It reads back as what `prepare` returned, its digests are those of the files, and its counts of the labels."""
    manifest, data = Manifest.read(prepared), load(prepared)
    assert prepare(digits(), prepared, root=ROOT) == manifest
    assert manifest.files == {name: hashlib.sha256((prepared / name).read_bytes()).hexdigest() for name in ARRAYS}
    assert manifest.counts["test"] == {str(k): int((data.test.labels == k).sum()) for k in range(10)}
    assert manifest.request_digest == request_digest(digits()) == digest(canonical(digits()))
    assert (data.digest, data.test_digest) == (manifest.digest, manifest.test_digest)
    assert (manifest.name, manifest.shape, manifest.class_names) == ("digits", (1, 8, 8), data.class_names)


def test_request_digests_tell_values_not_spellings() -> None:
    """`1/5` and `0.2` are the same request; another share is another."""
    assert request_digest(digits(validation="1/5")) == request_digest(digits(validation=0.2))
    assert request_digest(digits(validation="1/5")) != request_digest(digits(validation="1/4"))


@settings(max_examples=25)
@given(images=arrays.arrays(np.uint8, st.tuples(*(st.integers(1, 4) for _ in range(4)))))
def test_pixel_moments_are_those_of_float64(images: np.ndarray) -> None:
    """Mean and standard deviation per channel of pixels / 255."""
    mean, std = pixel_moments(images)
    np.testing.assert_allclose(mean, (images / 255).mean(axis=(0, 2, 3)), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(std, (images / 255).std(axis=(0, 2, 3)), rtol=1e-6, atol=1e-7)


def test_constant_pixels_are_not_divided_by_zero(tmp_path: Path) -> None:
    """The manifest tells a deviation of 0, the model gets 1."""
    manifest = prepare(Pretended(), tmp_path / "flat", root=ROOT)
    shape = load(tmp_path / "flat").shape
    assert (manifest.mean, manifest.std) == ((7 / 255,), (0.0,))
    assert (shape.mean, shape.std, shape.height, shape.width) == ((7 / 255,), (1.0,), 4, 6)


def test_options_that_are_no_source_are_refused(tmp_path: Path) -> None:
    """`prepare` takes the options of a source."""
    with pytest.raises(TypeError, match="not a source"):
        prepare(DataOptions(name="nothing"), tmp_path / "x", root=ROOT)


@pytest.mark.parametrize("rare", [0, 1])
def test_a_class_too_small_for_every_split_is_named(tmp_path: Path, rare: int) -> None:
    """Nothing is written where a class would be missing in a split."""
    with pytest.raises(BadInput, match=f"class 'yes' has {rare} images.*data.validation"):
        prepare(Pretended(rare=rare), tmp_path / "x", root=ROOT)
    assert not list(tmp_path.iterdir())


def test_a_share_too_small_for_all_classes_is_refused(tmp_path: Path) -> None:
    """One image of 1,347 can't be a validation split of ten classes."""
    with pytest.raises(BadInput, match=r"a share of 0\.0005 of 1347 images for validation"):
        prepare(digits(validation=0.0005), tmp_path / "x", root=ROOT)


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    """The sentence names the command that makes it."""
    with pytest.raises(BadInput, match=r"no prepared data in .*absent; run `dvc repro prepare`"):
        load(tmp_path / "absent")


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing"])
def test_a_file_changed_after_prepare_is_refused(tmp_path: Path, name: str, damage: str) -> None:
    """One flipped bit, one byte less or no file at all: the sentence names the file and the mend."""
    prepare(Pretended(), tmp_path / "data", root=ROOT)
    path = tmp_path / "data" / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-1] + (bytes([content[-1] ^ 1]) if damage == "flipped" else b""))
    with pytest.raises(BadInput, match=rf"{name} (has changed|is missing).*`dvc repro --force prepare`"):
        load(tmp_path / "data")


@pytest.mark.parametrize("key", ["class_names", "mean", "shape", "request", "digest", "test_digest"])
def test_a_changed_manifest_is_refused(tmp_path: Path, key: str) -> None:
    """Whatever a training or a table takes from the manifest is under its digests."""
    prepare(Pretended(), tmp_path / "data", root=ROOT)
    path = tmp_path / "data" / MANIFEST
    tree = json.loads(path.read_text())
    tree[key] = {
        "class_names": ["yes", "no"],
        "mean": [0.5],
        "shape": [1, 6, 4],
        "request": {},
        "digest": "0" * 64,
        "test_digest": "0" * 64,
    }[key]
    path.write_text(json.dumps(tree))
    with pytest.raises(BadInput, match=r"manifest\.json has changed"):
        load(tmp_path / "data")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_a_damaged_manifest_is_refused(tmp_path: Path, content: str) -> None:
    """A manifest that can't be read is told as one sentence."""
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(BadInput, match="damaged"):
        load(tmp_path)


def test_pickles_in_array_files_are_not_run(tmp_path: Path) -> None:
    """An array of objects is refused even under a manifest that vouches for it."""

    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "harm"),)

    manifest = prepare(Pretended(), tmp_path / "data", root=ROOT)
    np.save(tmp_path / "data" / "test_labels.npy", np.array([Harmful()], dtype=object), allow_pickle=True)
    content = (tmp_path / "data" / "test_labels.npy").read_bytes()
    files = {**manifest.files, "test_labels.npy": hashlib.sha256(content).hexdigest()}
    names, shape = manifest.class_names, manifest.shape
    forged = manifest.model_copy(
        update={
            "files": files,
            "digest": digest_of_content(files, names, shape, manifest.mean, manifest.std),
            "test_digest": digest_of_test(files, names),
        }
    )
    (tmp_path / "data" / MANIFEST).write_text(forged.model_dump_json())
    with pytest.raises(ValueError, match=r"pickle|object"):
        load(tmp_path / "data")
    assert not (tmp_path / "harm").exists()
