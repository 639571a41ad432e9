"""Laws of the batches of an epoch."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generalist.data import InMemorySamples, Split, augment, epoch, last_batch, steps_per_epoch
from generalist.data.batches import in_batches
from generalist.randomness import generator
from generalist.tensors import Batch

few = settings(max_examples=20)
TWICE: dict[str, Any] = {"second": True}


def split(count: int = 23) -> Split:
    """Images whose pixels tell their position; labels are positions modulo 3."""
    positions = np.arange(count)
    images = np.broadcast_to(positions[:, None, None, None].astype(np.uint8), (count, 2, 8, 8))
    return Split(np.ascontiguousarray(images), (positions % 3).astype(np.int64))


def one_pass(
    resident: InMemorySamples, *, seed: int = 0, number: int = 0, batch_size: int = 5, names: tuple[str, ...] = ()
) -> list[Batch]:
    """Return the batches of an epoch, by default the first of seed 0 without augmentation."""
    return list(epoch(resident, seed=seed, epoch=number, batch_size=batch_size, augment=names))


@few
@given(count=st.integers(1, 40), batch_size=st.integers(1, 50), seed=st.integers(0, 9))
def test_an_epoch_visits_each_sample_once(count: int, batch_size: int, seed: int) -> None:
    """The ids are a permutation, cut into full batches and a last one that keeps the rest."""
    batches = one_pass(InMemorySamples.of(split(count)), seed=seed, batch_size=batch_size)
    assert len(batches) == steps_per_epoch(count, batch_size)
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert sorted(torch.cat([batch.ids for batch in batches]).tolist()) == list(range(count))


def test_batches_are_the_samples_of_their_ids() -> None:
    """float32 pixels in [0, 1] and int64 labels, as the split has them."""
    data = split()
    for batch in one_pass(InMemorySamples.of(data)):
        assert (batch.images.dtype, batch.labels.dtype, batch.ids.dtype) == (torch.float32, torch.int64, torch.int64)
        expected = data.images[batch.ids.numpy()].astype(np.float32) / np.float32(255)
        assert np.array_equal(batch.images.numpy(), expected)
        assert np.array_equal(batch.labels.numpy(), data.labels[batch.ids.numpy()])


@few
@given(count=st.integers(1, 40), batch_size=st.integers(1, 50), first=st.integers(0, 12))
def test_the_rest_of_an_epoch_is_its_end(count: int, batch_size: int, first: int) -> None:
    """An epoch that begins at a step gives the batches of the whole one from there on, augmented alike."""
    resident, names = InMemorySamples.of(split(count)), ("crop", "flip", "cutout", "rotate")
    whole = one_pass(resident, number=2, batch_size=batch_size, names=names)
    rest = epoch(resident, seed=0, epoch=2, batch_size=batch_size, augment=names, first=first)
    for one, other in zip(whole[first:], rest, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.ids, other.ids)


def test_the_order_is_keyed_by_seed_and_epoch() -> None:
    """The same key gives the same order, whatever the batch size; another seed or epoch another."""
    resident = InMemorySamples.of(split())

    def order(seed: int, number: int, batch_size: int) -> list[int]:
        batches = one_pass(resident, seed=seed, number=number, batch_size=batch_size)
        return torch.cat([batch.ids for batch in batches]).tolist()

    assert order(0, 0, 5) == order(0, 0, 5) == order(0, 0, 7)
    assert order(0, 0, 5) != order(1, 0, 5)
    assert order(0, 0, 5) != order(0, 1, 5)


def test_augmentation_is_keyed_by_seed_epoch_and_step() -> None:
    """Each batch is the plain one augmented with the draws of its key, and the ids are the same."""
    resident = InMemorySamples.of(split())
    names = ("crop", "flip")
    plain, augmented = one_pass(resident, number=3), one_pass(resident, number=3, names=names)
    for step, (before, after) in enumerate(zip(plain, augmented, strict=True)):
        expected = augment(before.images, names, generator(0, "augment", 3, step))
        assert torch.equal(after.images, expected)
        assert torch.equal(after.ids, before.ids)
        assert torch.equal(after.labels, before.labels)


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    """Batches don't depend on torch's global seed and leave it as it is."""
    resident = InMemorySamples.of(split())
    state = torch.get_rng_state()
    first = one_pass(resident, names=("crop", "flip"))
    assert torch.equal(torch.get_rng_state(), state)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        second = one_pass(resident, names=("crop", "flip"))
    assert all(torch.equal(a.images, b.images) for a, b in zip(first, second, strict=True))


def test_a_resident_split_is_a_copy() -> None:
    """It takes read-only arrays, and a later change of them is not seen."""
    data = split()
    data.images.setflags(write=False)
    resident = InMemorySamples.of(data)
    data.images.setflags(write=True)
    data.images[:] = 99
    assert resident.images.dtype == torch.uint8
    assert len(resident) == 23
    assert resident.images[4].unique().tolist() == [4]


@given(count=st.integers(1, 60), batch_size=st.integers(1, 60), data=st.data())
def test_a_single_image_joins_the_batch_before(count: int, batch_size: int, data: st.DataObject) -> None:
    """Batches are whole but the last, which is larger by one where one image would be left; also after a break."""
    sizes = [len(piece) for piece in in_batches(torch.arange(count), batch_size)]
    assert sum(sizes) == count and len(sizes) == steps_per_epoch(count, batch_size)
    assert set(sizes[:-1]) <= {batch_size}
    assert sizes[-1] == last_batch(count, batch_size) <= batch_size + 1
    assert sizes[-1] > 1 or len(sizes) == 1 or batch_size == 1
    first = data.draw(st.integers(0, len(sizes) - 1))
    rest = [piece.tolist() for piece in in_batches(torch.arange(count)[first * batch_size :], batch_size)]
    assert rest == [piece.tolist() for piece in in_batches(torch.arange(count), batch_size)][first:]


def test_a_second_view_is_another_augmentation_by_numbers_of_its_own() -> None:
    """What else a batch holds is as without it; of a batch of one view there are no two."""
    how: dict[str, Any] = {"seed": 0, "epoch": 2, "batch_size": 5, "augment": ("crop", "rotate")}
    resident = InMemorySamples.of(split())
    one, two, rest = (list(epoch(resident, **how, **more)) for more in ({}, TWICE, TWICE | {"first": 3}))
    for plain, both in zip(one, two, strict=True):
        first, second = both.views()
        for other in (first, second):
            assert torch.equal(plain.ids, other.ids) and torch.equal(plain.labels, other.labels)
        assert torch.equal(plain.images, first.images) and not torch.equal(plain.images, second.images)
    for whole, again in zip(two[3:], rest, strict=True):
        assert torch.equal(whole.views()[1].images, again.views()[1].images)
        assert torch.equal(whole.rows(slice(1, 3)).views()[1].images, again.views()[1].images[1:3])
    with pytest.raises(TypeError, match="one view"):
        one[0].views()
