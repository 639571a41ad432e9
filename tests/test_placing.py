"""Training images on the device and on the disk: the same bits, and which of the two is chosen."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from generalist.config import load
from generalist.data import InMemorySamples, MappedSamples, Samples, Split, epoch, images_on
from generalist.data import mapped as module
from generalist.data.mapped import _one_ahead
from generalist.errors import BadInput
from generalist.tensors import Batch

CPU = torch.device("cpu")
PARAMS = Path(__file__).parent.parent / "params.yaml"


def split(count: int = 23) -> Split:
    """Random images."""
    draws = np.random.default_rng(count)
    return Split(draws.integers(0, 256, (count, 3, 8, 8), dtype=np.uint8), draws.integers(0, 5, count))


def on_disk(folder: Path) -> Split:
    """Return the same split, mapped from files as `load` maps them."""
    parts = []
    for name, array in vars(split()).items():
        np.save(folder / f"{name}.npy", array)
        parts.append(np.load(folder / f"{name}.npy", mmap_mode="r"))
    return Split(*parts)


def equal(one: Batch, other: Batch) -> bool:
    """Bit for bit, dtype for dtype."""
    pairs = [(one.images, other.images), (one.labels, other.labels), (one.ids, other.ids)]
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


@given(count=st.integers(1, 40), batch_size=st.integers(1, 50), seed=st.integers(0, 9), first=st.integers(0, 3))
def test_mapped_batches_are_the_resident_ones_bit_for_bit(count: int, batch_size: int, seed: int, first: int) -> None:
    """Whole epochs, and the rest of one, with every augmentation."""
    names = ("crop", "flip", "cutout", "rotate")
    passes = [
        list(epoch(samples, seed=seed, epoch=1, batch_size=batch_size, augment=names, first=first))
        for samples in (InMemorySamples.of(split(count)), MappedSamples(split(count)))
    ]
    assert all(equal(one, other) for one, other in zip(*passes, strict=True))


@given(ids=st.lists(st.integers(0, 22), max_size=30))
def test_any_positions_can_be_asked_for(ids: list[int]) -> None:
    """In any order, some twice, none at all."""
    wanted = torch.tensor(ids, dtype=torch.int64)
    assert equal(InMemorySamples.of(split()).batch(wanted), MappedSamples(split()).batch(wanted))


def test_a_mapped_split_reads_only_what_is_asked_for(tmp_path: Path) -> None:
    """Nothing of the images is copied beforehand, and the arrays may be read-only."""
    data = on_disk(tmp_path)
    mapped = MappedSamples(data)
    assert isinstance(mapped._images, np.memmap)
    assert len(mapped) == 23
    with (tmp_path / "images.npy").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xaa")
    assert mapped.batch(torch.tensor([22])).images[0, -1, -1, -1] == torch.tensor(0xAA / 255)


def test_one_batch_is_read_ahead_by_another_thread() -> None:
    """While a result is in use the next is made, and no more; at the end no thread is left."""
    made: list[int] = []
    first_in_use = threading.Event()

    def work(item: int) -> int:
        if item == 1:
            assert first_in_use.wait(10)
        made.append(item)
        return threading.get_ident()

    results = _one_ahead(work, range(4))
    workers = [next(results)]
    assert made == [0]
    first_in_use.set()
    workers += list(results)
    assert made == [0, 1, 2, 3]
    assert set(workers) != {threading.get_ident()} and len(set(workers)) == 1
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("images")]


def test_an_epoch_that_is_left_leaves_no_thread() -> None:
    """As when a step fails."""
    batches = epoch(MappedSamples(split()), seed=0, epoch=0, batch_size=4, augment=())
    next(batches)
    batches.close()  # type: ignore[attr-defined]  # it is a generator
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("images")]


def test_a_failure_to_read_reaches_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes wrong in the thread is not lost there."""
    mapped = MappedSamples(split())

    def fails(_ids: Any) -> Any:
        raise OSError("the disk is gone")

    monkeypatch.setattr(mapped, "_rows", fails)
    with pytest.raises(OSError, match="the disk is gone"):
        list(mapped.batches(torch.arange(23), 5))


@pytest.mark.parametrize(("free", "expected"), [(4, InMemorySamples), (3.99, MappedSamples)])
def test_auto_takes_a_quarter_of_the_free_memory(
    free: float, expected: type[Samples], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resident up to there, mapped beyond."""
    data = split()
    monkeypatch.setattr(module, "free_memory", lambda _device: int(free * data.images.nbytes))
    assert type(images_on(data, CPU, "auto")) is expected


def test_the_choice_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """`resident` and `mapped` don't ask for the free memory."""
    monkeypatch.setattr(module, "free_memory", None)  # calling it would fail
    assert type(images_on(split(), CPU, "resident")) is InMemorySamples
    assert type(images_on(split(), CPU, "mapped")) is MappedSamples


def test_free_memory_is_between_nothing_and_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system doesn't tell what is free, it tells what is there."""
    free = module.free_memory(CPU)
    monkeypatch.setattr(module.Path, "read_text", lambda *_args, **_more: "")
    assert 0 < free < module.free_memory(CPU)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_both_come_out_on_the_device() -> None:
    """On CUDA, through pinned memory, with the same bits."""
    cuda, names = torch.device("cuda"), ("crop", "flip", "cutout", "rotate")
    passes = [
        list(epoch(images_on(split(), cuda, how), seed=0, epoch=0, batch_size=5, augment=names))
        for how in ("resident", "mapped")
    ]
    for one, other in zip(*passes, strict=True):
        assert one.images.is_cuda and one.ids.is_cuda and equal(one, other)
    assert 0 < module.free_memory(cuda) <= torch.cuda.get_device_properties(cuda).total_memory


def test_another_place_is_refused() -> None:
    """With what can be chosen."""
    with pytest.raises(BadInput, match=r"training\.images is .disk., but it should be 'auto', 'resident' or 'mapped'"):
        load(PARAMS, overrides=["training.images=disk"])
