"""Images without labels: what `prepare` makes of them, how batches draw them, and a training that needs them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from generalist.config import Config, canonical
from generalist.data import Dataset, InMemorySamples, Manifest, changed_since, check_watched, epoch, load, prepare
from generalist.errors import BadInput
from generalist.store import Store
from generalist.training import Trainer
from tests.test_freshness import later
from tests.training_factory import abandon, digests, finish, small

SELF_TRAINED = (
    "mixing=null",
    "deploy=expert:robust",
    "training.epochs=2",
    "experts.natural.sequence={stop: 1}",
    "experts.robust.sequence={start: 1, teacher: natural}",
    "experts.robust.objective={name: rst, threat: {norm: linf, eps: 0.1}, attack: {steps: 2}}",
)
REST = ("data.unlabelled=rest",)


def made(folder: Path, *overrides: str) -> Dataset:
    """Return prepared digits; relative paths are below the folder."""
    prepare(small(*overrides).data, folder / "data", root=folder)
    return load(folder / "data")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Seven grey pictures, some in nested folders, and a file that is none."""
    draw = np.random.default_rng(0)
    for index in range(7):
        folder = tmp_path / "pictures" / ("deeper" if index % 2 else "")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{index}.png")
    (tmp_path / "pictures" / "notes.txt").write_text("none")
    return tmp_path / "pictures"


def test_a_folder_and_a_file_of_the_same_images_are_the_same(pictures: Path, tmp_path: Path) -> None:
    """To the pixel; the splits are those without them, and the digest of what a training sees is another."""
    plain = made(tmp_path / "plain")
    read = made(tmp_path, "data.unlabelled=pictures")
    assert read.unlabelled is not None and len(read.unlabelled) == 7
    expected = {np.asarray(Image.open(path)).tobytes() for path in pictures.rglob("*.png")}
    assert {image.tobytes() for image in read.unlabelled.images} == expected
    np.savez(tmp_path / "images.npz", images=read.unlabelled.images)
    again = made(tmp_path, "data.unlabelled=images.npz")
    assert again.unlabelled is not None and np.array_equal(again.unlabelled.images, read.unlabelled.images)
    assert plain.unlabelled is None and np.array_equal(plain.train.images, read.train.images)
    assert plain.digest != read.digest == again.digest and plain.test_digest == read.test_digest


def test_without_them_nothing_of_the_configuration_changes() -> None:
    """Neither what is hashed nor what is shown."""
    assert "unlabelled" not in canonical(small().data)
    assert canonical(small("data.unlabelled=pictures").data)["unlabelled"] == "pictures"


def test_the_rest_are_the_images_that_are_left_out(tmp_path: Path) -> None:
    """Together with those that are kept, all training images; none of the test."""
    whole, part = made(tmp_path / "whole", "data.images=all"), made(tmp_path / "part", *REST)
    assert part.unlabelled is not None
    kept = [*part.train.images, *part.validation.images, *part.unlabelled.images]
    every = [*whole.train.images, *whole.validation.images]
    assert sorted(image.tobytes() for image in kept) == sorted(image.tobytes() for image in every)
    with pytest.raises(BadInput, match="'unlabelled' is rest, but 'images' is all and leaves none out"):
        small("data.images=all", "data.unlabelled=rest")


def test_test_images_among_them_are_told_and_removed(tmp_path: Path) -> None:
    """As copies across splits are."""
    test = made(tmp_path / "first").test.images[:5]
    np.savez(tmp_path / "images.npz", images=np.concatenate([test, 255 - test]))
    kept = made(tmp_path, "data.unlabelled=images.npz")
    assert kept.copies["test in unlabelled"] == 5
    removed = made(tmp_path, "data.unlabelled=images.npz", "data.copies=remove")
    assert removed.unlabelled is not None and len(removed.unlabelled) == 5
    assert removed.copies["test in unlabelled"] == 0


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "nowhere is neither a folder nor an .npz file; name a folder of images or an .npz file by data.unl"),
        ({}, "nowhere holds no images in a format that Pillow reads, such as .png; name a folder"),
        ({"notes.txt": b"none"}, "nowhere holds no images"),
        ({"broken.png": b"none"}, r"broken\.png is no image that Pillow can read"),
    ],
)
def test_a_folder_without_images_is_refused(tmp_path: Path, content: dict[str, bytes] | None, sentence: str) -> None:
    """Before anything is written."""
    for name, given in (content or {}).items():
        (tmp_path / "nowhere").mkdir(exist_ok=True)
        (tmp_path / "nowhere" / name).write_bytes(given)
    if content == {}:
        (tmp_path / "nowhere").mkdir()
    with pytest.raises(BadInput, match=sentence):
        made(tmp_path, "data.unlabelled=nowhere")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"pictures": np.zeros((3, 1, 8, 8), np.uint8)}, "has no array images"),
        (
            {"images": np.zeros((3, 3, 8, 8), np.uint8)},
            r"images of uint8 \[3, 3, 8, 8\], expected uint8 \[n, 1, 8, 8\]",
        ),
        ({"images": np.zeros((3, 1, 8, 8), np.float32)}, "images of float32"),
        ({"images": np.zeros((0, 1, 8, 8), np.uint8)}, "with one at least"),
    ],
)
def test_an_array_of_another_form_is_refused(tmp_path: Path, arrays: dict[str, Any], sentence: str) -> None:
    """With what is expected."""
    np.savez(tmp_path / "images.npz", **arrays)
    with pytest.raises(BadInput, match=sentence):
        made(tmp_path, "data.unlabelled=images.npz")


def test_changes_are_noticed_and_places_that_nobody_watches_refused(pictures: Path, tmp_path: Path) -> None:
    """As those of a source are."""
    options = small("data.unlabelled=pictures").data
    made(tmp_path, "data.unlabelled=pictures")
    assert not changed_since(options, tmp_path / "data", root=tmp_path)
    later(pictures / "0.png")
    assert not changed_since(options, tmp_path / "data", root=tmp_path)
    (pictures / "0.png").unlink()
    later(pictures)
    assert changed_since(options, tmp_path / "data", root=tmp_path)
    check_watched(options, root=tmp_path, watched=tmp_path)
    with pytest.raises(BadInput, match=r"data\.unlabelled is .*pictures, outside of .*raw, where DVC would not see"):
        check_watched(options, root=tmp_path, watched=tmp_path / "raw")
    check_watched(small(*REST).data, root=tmp_path, watched=tmp_path / "raw")


def test_a_changed_file_is_noticed(pictures: Path, tmp_path: Path) -> None:
    """Like each array that `prepare` wrote."""
    made(tmp_path, f"data.unlabelled={pictures}")
    assert "unlabelled_images.npy" in Manifest.read(tmp_path / "data").files
    (tmp_path / "data" / "unlabelled_images.npy").write_bytes(b"none")
    with pytest.raises(BadInput, match=r"unlabelled_images\.npy has changed since it was prepared"):
        load(tmp_path / "data")


def test_batches_draw_them_by_numbers_of_their_own(tmp_path: Path) -> None:
    """As many as there are labelled images, which stay as they are; the rest of an epoch is its end."""
    data = made(tmp_path, *REST)
    assert data.unlabelled is not None
    train, others = InMemorySamples.of(data.train), InMemorySamples.of(data.unlabelled)
    how: dict[str, Any] = {"seed": 0, "epoch": 2, "batch_size": 100, "augment": ("crop",)}
    plain, both = list(epoch(train, **how)), list(epoch(train, unlabelled=others, **how))
    for one, other in zip(plain, both, strict=True):
        assert other.unlabelled is not None and other.unlabelled.shape == one.images.shape
        assert torch.equal(one.images, other.images) and one.unlabelled is None
        part = other.rows(slice(1, 3)).unlabelled
        assert part is not None and torch.equal(part, other.unlabelled[1:3])
    (last,) = epoch(train, unlabelled=others, first=len(both) - 1, **how)
    assert last.unlabelled is not None and both[-1].unlabelled is not None
    assert torch.equal(last.unlabelled, both[-1].unlabelled)
    drawn = list(epoch(train, unlabelled=others, **how | {"augment": ()}))
    known = {image.tobytes() for image in data.unlabelled.images}
    for batch in drawn:
        assert batch.unlabelled is not None
        assert {image.numpy().tobytes() for image in (batch.unlabelled * 255).to(torch.uint8)} <= known


def self_trained(*overrides: str) -> Config:
    """Return a small configuration of robust self-training on digits without a part of the labels."""
    return small(*REST, *SELF_TRAINED, *overrides)


def test_self_training_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """Wherever it was left; and it depends on the images without labels."""
    data = made(tmp_path, *REST)
    assert data.unlabelled is not None
    whole = digests(finish(self_trained(), data, tmp_path / "whole")[1])
    abandon(self_trained(), data, tmp_path / "left", after=2)
    assert digests(finish(self_trained(), data, tmp_path / "left")[1]) == whole
    without = finish(self_trained("experts.robust.objective.weight=0"), data, tmp_path / "without")[1]
    assert digests(without)["natural"] == whole["natural"] and digests(without)["robust"] != whole["robust"]


def test_who_needs_them_and_has_none_is_told(dataset: Dataset, tmp_path: Path) -> None:
    """By the configuration, or by data that was prepared without."""
    with pytest.raises(BadInput, match=r"data\.unlabelled is needed by the objective rst: give it"):
        self_trained("data.unlabelled=null")
    with pytest.raises(BadInput, match=r"the prepared data has none: prepare it with data\.unlabelled"):
        Trainer(self_trained(), dataset, Store(tmp_path))
