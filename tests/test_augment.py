"""Laws of the augmentations."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from generalist.data import augment
from generalist.randomness import generator

shapes = st.tuples(st.integers(0, 5), st.integers(1, 3), st.integers(1, 17), st.integers(1, 17))
augmentations = st.lists(st.sampled_from(["crop", "flip"]), max_size=3).map(tuple)
few = settings(max_examples=30)


def draws(seed: int) -> torch.Generator:
    """A fresh generator for a key."""
    return generator(seed, "augment", 0, 0)


def pixels(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """Random images in (0, 1]: zero means padding."""
    return 1 - torch.rand(shape, generator=generator(seed, "init"))


@few
@given(shape=shapes, seed=st.integers(0, 99))
def test_every_crop_is_a_window_of_the_padded_image(shape: tuple[int, ...], seed: int) -> None:
    """A crop is the padded image seen through a window of the original size, the same for all channels."""
    images = pixels(shape, seed)
    count, _, height, width = shape
    down, right = max(1, height // 8), max(1, width // 8)
    padded = F.pad(images, (right, right, down, down))
    cropped = augment(images, ("crop",), draws(seed))
    assert cropped.shape == images.shape
    for sample in range(count):
        windows = (
            padded[sample, :, top : top + height, left : left + width]
            for top in range(2 * down + 1)
            for left in range(2 * right + 1)
        )
        assert any(torch.equal(cropped[sample], window) for window in windows)


def test_crops_reach_every_offset_and_differ_between_samples() -> None:
    """With padding 1 and 2 there are 3 × 5 offsets, and many samples meet them all about equally often."""
    one = torch.arange(1.0, 129.0).view(1, 1, 8, 16) / 128
    cropped = augment(one.expand(1500, -1, -1, -1), ("crop",), draws(0))
    kinds, counts = torch.unique(cropped.flatten(1), dim=0, return_counts=True)
    assert len(kinds) == 15
    assert counts.min() > 50  # 100 expected; the chance of 50 or fewer is below 1e-7


@few
@given(shape=shapes, seed=st.integers(0, 99))
def test_flip_is_involutive(shape: tuple[int, ...], seed: int) -> None:
    """Flipping twice with the same draws gives the images back; each image is mirrored or as it was."""
    images = pixels(shape, seed)
    flipped = augment(images, ("flip",), draws(seed))
    assert torch.equal(augment(flipped, ("flip",), draws(seed)), images)
    for before, after in zip(images, flipped, strict=True):
        assert torch.equal(after, before) or torch.equal(after, before.flip(2))


def test_flip_mirrors_left_to_right_in_about_half_of_the_samples() -> None:
    """Rows stay, columns are mirrored, for some 500 of 1000 samples."""
    one = torch.tensor([[0.25, 0.5], [0.75, 1.0]]).view(1, 1, 2, 2)
    flipped = augment(one.expand(1000, -1, -1, -1), ("flip",), draws(0))
    mirrored = (flipped == torch.tensor([[0.5, 0.25], [1.0, 0.75]])).flatten(1).all(1)
    assert 400 < int(mirrored.sum()) < 600
    assert torch.equal(flipped[~mirrored], one.expand(int((~mirrored).sum()), -1, -1, -1))


@few
@given(shape=shapes, names=augmentations, seed=st.integers(0, 99))
def test_same_key_same_bits(shape: tuple[int, ...], names: tuple[str, ...], seed: int) -> None:
    """The result depends on images, names and the generator's key; it is a new tensor in the same range and dtype."""
    images = pixels(shape, seed)
    kept = images.clone()
    first, second = (augment(images, names, draws(seed)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(images, kept)
    assert first.dtype == torch.float32
    assert bool(((first >= 0) & (first <= 1)).all())


def test_other_keys_give_other_crops() -> None:
    """Two keys don't share their draws."""
    images = pixels((64, 3, 8, 8))
    assert not torch.equal(augment(images, ("crop",), draws(0)), augment(images, ("crop",), draws(1)))


def test_no_augmentation_draws_nothing() -> None:
    """With no names the images come back as they are, and the generator has not moved."""
    images, used = pixels((3, 1, 8, 8)), draws(0)
    assert augment(images, (), used) is images
    assert torch.equal(used.get_state(), draws(0).get_state())


def test_augmentations_apply_in_the_given_order() -> None:
    """`(crop, flip)` is a flip of the crop, with one generator running through both."""
    images, used = pixels((16, 1, 8, 8)), draws(0)
    step_by_step = augment(augment(images, ("crop",), used), ("flip",), used)
    assert torch.equal(augment(images, ("crop", "flip"), draws(0)), step_by_step)
