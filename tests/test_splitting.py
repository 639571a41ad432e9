"""Laws of holding back a share of a split."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from generalist.data import Split
from generalist.data.splits import stratified_split
from generalist.errors import BadInput


def numbered(counts: list[int]) -> Split:
    """As many samples of each class as `counts` says, mixed; the pixel is the sample's position."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    return Split(np.arange(len(labels), dtype=np.uint8)[:, None, None, None], labels.astype(np.int64))


@given(
    counts=st.lists(st.integers(0, 12), min_size=2, max_size=6),
    share=st.floats(0.05, 0.95),
    seed=st.integers(0, 9),
)
def test_parts_are_disjoint_ordered_and_hold_every_class_or_are_refused(
    counts: list[int], share: float, seed: int
) -> None:
    """Each sample is in one part with its label, in the original order; a class on one side only is refused."""
    split, names = numbered(counts), tuple(f"c{index}" for index in range(len(counts)))
    try:
        parts = stratified_split(split, share, seed=seed, class_names=names, purpose="test")
    except BadInput:
        return
    positions = [part.images.ravel() for part in parts]
    assert sorted(np.concatenate(positions)) == list(range(sum(counts)))
    for part, where in zip(parts, positions, strict=True):
        assert list(where) == sorted(where)
        assert np.array_equal(part.labels, split.labels[where])
        assert set(part.labels) == set(range(len(counts)))
    assert len(parts[1]) == int(np.ceil(share * sum(counts)))


@pytest.mark.parametrize(
    ("counts", "share", "scarce"), [([50, 50, 2], 0.03, "c2"), ([2, 50, 50], 0.97, "c0"), ([9, 1], 0.5, "c1")]
)
def test_the_class_that_can_not_be_on_both_sides_is_named(counts: list[int], share: float, scarce: str) -> None:
    """Whether it would be missing in what is held back, in what is kept, or can't be parted at all."""
    names = tuple(f"c{index}" for index in range(len(counts)))
    with pytest.raises(BadInput, match=f"class '{scarce}' has {min(counts)} images"):
        stratified_split(numbered(counts), share, seed=0, class_names=names, purpose="test")


def test_a_fair_split_is_not_refused() -> None:
    """A share of 0.2 of 2 × 10 samples holds two of each back."""
    kept, held = stratified_split(numbered([10, 10]), 0.2, seed=0, class_names=("a", "b"), purpose="test")
    assert np.bincount(kept.labels).tolist() == [8, 8]
    assert np.bincount(held.labels).tolist() == [2, 2]
