"""Subsets: a choice with the shares of all classes, whatever order a split lies in."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from generalist.config import EvaluationOptions
from generalist.data import Dataset, Split
from generalist.data.splits import stratified_indices
from generalist.errors import BadInput
from generalist.evaluation import evaluated_positions, protocol, subset
from pipelines.cli.image_ranges import chosen_images
from tests.training_factory import small

SIZES = st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(lambda sizes: sum(sizes) > 0)


def in_order(sizes: list[int]) -> np.ndarray:
    """Labels in the order of classes, as a folder's test split has them."""
    return np.repeat(np.arange(len(sizes)), sizes)


@given(sizes=SIZES, seed=st.integers(0, 2**31), data=st.data())
def test_a_choice_has_every_class_with_its_share(sizes: list[int], seed: int, data: st.DataObject) -> None:
    """Each class that there is, if there are as many places, and its share but for an image or two."""
    labels = in_order(sizes)
    count = data.draw(st.integers(1, len(labels)))
    positions = stratified_indices(labels, count, seed=seed)
    assert len(positions) == count
    assert (np.diff(positions) > 0).all()
    taken, sizes_ = np.bincount(labels[positions], minlength=len(sizes)), np.array(sizes)
    there = sizes_ > 0
    if count >= there.sum():
        assert (taken[there] > 0).all()
    assert np.abs(taken - count * sizes_ / len(labels)).max() <= 1 + there.sum()
    assert np.array_equal(positions, stratified_indices(labels, count, seed=seed))


@given(sizes=SIZES, seed=st.integers(0, 2**31))
def test_a_smaller_choice_is_part_of_a_larger_one(sizes: list[int], seed: int) -> None:
    """So a second look at more images keeps the first."""
    labels = in_order(sizes)
    larger: set[int] = set()
    for count in range(1, len(labels) + 1):
        own = set(stratified_indices(labels, count, seed=seed).tolist())
        assert larger <= own
        larger = own


def options(**changed: object) -> EvaluationOptions:
    """Return the configuration's evaluation with other values."""
    return small().evaluation.model_copy(update=changed)


@pytest.fixture
def split() -> Split:
    """Eighty images of the first class, then twenty of each other."""
    labels = in_order([80, 20, 20])
    return Split(np.arange(120, dtype=np.uint8)[:, None, None, None], labels)


def test_an_evaluation_of_few_images_has_all_classes(split: Split) -> None:
    """The first twenty would be of one class, of which a network that knows no other is always right."""
    part = subset(split, options(images=20))
    assert np.abs(np.bincount(part.labels) - np.array([13.3, 3.3, 3.3])).max() < 2
    assert np.array_equal(part.images[:, 0, 0, 0], evaluated_positions(split, options(images=20)))
    assert not np.array_equal(part.images, subset(split, options(images=20, seed=1)).images)
    assert len(subset(split, options(images="all"))) == len(subset(split, options(images=999))) == 120


def test_classes_that_are_left_out_are_told(split: Split, caplog: pytest.LogCaptureFixture) -> None:
    """Two images can't be of three classes."""
    with caplog.at_level(logging.WARNING, logger="generalist"):
        subset(split, options(images=20))
        assert caplog.messages == []
        subset(split, options(images=2))
    assert caplog.messages == ["evaluation.images is 2, which leaves out 1 of 3 classes"]


def test_the_choice_is_part_of_the_protocol(dataset: Dataset) -> None:
    """Evaluations on other images don't compare."""
    ways = ["evaluation.images=40", "evaluation.images=41", "evaluation.images=all", "evaluation.seed=1"]
    assert len({protocol(small(way), dataset).digest() for way in ways}) == 4
    assert protocol(small("evaluation.images=40"), dataset).chosen == "stratified by class, seed 0"
    few = replace(dataset, test=Split(dataset.test.images[:7], dataset.test.labels[:7]))
    assert protocol(small("evaluation.images=40"), few).n == 7


def test_a_command_takes_a_range_or_a_number(split: Split, capsys: pytest.CaptureFixture[str]) -> None:
    """A range is a shard of the order that is there, and says what it lacks; a number has all classes."""
    labels = split.labels
    assert chosen_images("100:", labels, seed=0).first == 100
    assert "holds 1 of 3 classes" in capsys.readouterr().err
    number = chosen_images("20", labels, seed=3)
    assert len(np.unique(labels[number.positions])) == 3
    assert number.told == "20 of 120, stratified by class, seed 3"
    assert chosen_images("120", labels, seed=0).told == chosen_images(":", labels, seed=0).told == "all"
    assert capsys.readouterr().err == ""
    for wrong in ("0", "121", "5:4", "a", "-1:", "1:2:3", ""):
        with pytest.raises(BadInput, match="is no range and no number among 120 images"):
            chosen_images(wrong, labels, seed=0)


def test_training_images_are_chosen_alike(tmp_path: Path) -> None:
    """`data.images` of digits, which holds back its test images first."""
    from generalist.data import load, prepare

    config = small("data.images=100")
    prepare(config.data, tmp_path / "data", root=tmp_path)
    counts = np.bincount(load(tmp_path / "data").train.labels)
    assert len(counts) == 10
    assert counts.min() >= 6
    with pytest.raises(BadInput, match=r"data\.images is 9, too few for 10 classes"):
        prepare(small("data.images=9").data, tmp_path / "few", root=tmp_path)
