"""Laws of the augmentations."""

import math
from itertools import permutations
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from generalist.config.experts import ExpertOptions
from generalist.data import augment
from generalist.randomness import generator

shapes = st.tuples(st.integers(0, 5), st.integers(1, 3), st.integers(1, 17), st.integers(1, 17))
NAMES = get_args(get_args(ExpertOptions.model_fields["augment"].annotation)[0])
augmentations = st.lists(st.sampled_from(NAMES), max_size=3).map(tuple)
few = settings(max_examples=30)


def draws(seed: int) -> torch.Generator:
    """Return a fresh generator for a key."""
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


@pytest.mark.parametrize("name", NAMES)
def test_other_keys_and_other_samples_draw_their_own(name: str) -> None:
    """Two keys don't share their draws, and among many copies of one image there are different results."""
    images = pixels((1, 3, 8, 8)).expand(64, -1, -1, -1)
    augmented = augment(images, (name,), draws(0))
    assert not torch.equal(augmented, augment(images, (name,), draws(1)))
    assert len(torch.unique(augmented.flatten(1), dim=0)) > 1


@pytest.mark.parametrize("name", NAMES)
def test_an_augmentation_treats_all_channels_alike(name: str) -> None:
    """Grey stays grey: what a sample draws holds for each of its channels."""
    grey = pixels((16, 1, 9, 12)).expand(-1, 3, -1, -1)
    augmented = augment(grey, (name,), draws(0))
    assert torch.equal(augmented[:, :1].expand(-1, 3, -1, -1), augmented)


@few
@given(shape=shapes, seed=st.integers(0, 99))
def test_a_cutout_blackens_one_rectangle_of_at_most_half_the_sides(shape: tuple[int, ...], seed: int) -> None:
    """Outside of it nothing changes; it is smaller only where it reaches beyond the image."""
    images = pixels(shape, seed)
    height, width = (max(1, side // 2) for side in shape[2:])
    for before, after in zip(images, augment(images, ("cutout",), draws(seed)), strict=True):
        black = after[0] == 0
        rows, columns = black.any(1).nonzero().flatten(), black.any(0).nonzero().flatten()
        assert torch.equal(black, black.any(1)[:, None] & black.any(0)[None, :])
        assert torch.equal(after, before.masked_fill(black, 0))
        for found, side, whole in ((rows, height, shape[2]), (columns, width, shape[3])):
            assert torch.equal(found, torch.arange(int(found[0]), int(found[-1]) + 1))
            assert len(found) == side or (0 < len(found) < side and (found[0] == 0 or found[-1] == whole - 1))


def test_cutouts_are_centred_everywhere() -> None:
    """Of eight centres in a row of eight, a band of four that begins two before covers place k this often."""
    holes = augment(torch.ones(6400, 1, 8, 8), ("cutout",), draws(0)) == 0
    covered = torch.tensor([3, 4, 4, 4, 4, 4, 3, 2]) / 8
    shares = holes.double().mean(0)[0]
    assert torch.allclose(shares, torch.outer(covered, covered).double(), atol=0.03)  # five standard deviations


def test_rotations_turn_about_the_centre_by_at_most_fifteen_degrees() -> None:
    """A dot on a circle about the centre of an image that is not square comes to lie on it, within the range."""
    height, width, radius = 41, 61, 16
    images = torch.zeros(400, 1, height, width)
    images[:, 0, height // 2, width // 2 + radius] = 1
    turned = augment(images, ("rotate",), draws(0))[:, 0]
    down = torch.arange(height)[:, None] - height // 2
    right = torch.arange(width)[None, :] - width // 2
    mass = turned.sum((1, 2))
    y, x = (turned * down).sum((1, 2)) / mass, (turned * right).sum((1, 2)) / mass
    angles = torch.atan2(y, x) * 180 / math.pi
    assert torch.allclose(torch.hypot(x, y), torch.tensor(float(radius)), atol=0.5)
    assert 13 < angles.max() < 16.5 and -16.5 < angles.min() < -13
    assert abs(float(angles.mean())) < 2


def test_a_rotation_leaves_what_is_round_as_it_was() -> None:
    """A constant disc in the middle stays; beyond the edges all is black, so corners get darker."""
    turned = augment(torch.ones(50, 2, 16, 16), ("rotate",), draws(0))
    assert torch.allclose(turned[:, :, 4:12, 4:12], torch.ones(()))
    assert float(turned[:, :, 0, 0].mean()) < 0.9


def test_no_augmentation_draws_nothing() -> None:
    """With no names the images come back as they are, and the generator has not moved."""
    images, used = pixels((3, 1, 8, 8)), draws(0)
    assert augment(images, (), used) is images
    assert torch.equal(used.get_state(), draws(0).get_state())


def test_augmentations_apply_in_the_given_order() -> None:
    """`(crop, flip)` is a flip of the crop, with one generator running through both; so with any two."""
    images = pixels((16, 1, 8, 8))
    for one, other in permutations(NAMES, 2):
        used = draws(0)
        step_by_step = augment(augment(images, (one,), used), (other,), used)
        assert torch.equal(augment(images, (one, other), draws(0)), step_by_step)


def test_old_augmentations_keep_their_bits() -> None:
    """Stored trainings were made with these: exact pixels of crop and flip under one key."""
    images = torch.arange(2 * 16, dtype=torch.float32).view(2, 1, 4, 4) / 32
    found = (augment(images, ("crop", "flip"), draws(7)) * 32).int().flatten(1).tolist()
    assert found == [
        [5, 6, 7, 0, 9, 10, 11, 0, 13, 14, 15, 0, 0, 0, 0, 0],
        [18, 17, 16, 0, 22, 21, 20, 0, 26, 25, 24, 0, 30, 29, 28, 0],
    ]
