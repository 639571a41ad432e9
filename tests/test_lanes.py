"""Streams of experts that advance at once."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch

from generalist import engine
from generalist.data import Dataset
from generalist.experts import Expert
from tests.cuda_double import Cuda
from tests.training_factory import finish, small

CUDA = torch.device("cuda")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")


@pytest.mark.parametrize("on", ["cpu", "cuda"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_nothing_happens(on: str) -> None:
    """Also where one is asked for: what the store holds is told without it."""
    with engine.lane(torch.device(on)):
        total = torch.ones(3).sum()
    assert total == 3
    assert not torch.cuda.is_initialized()


def test_an_expert_trains_in_a_lane(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All its steps, on the configured device and as plain as the engine."""
    asked: list[tuple[str, bool]] = []
    inside: list[bool] = []
    steps: list[bool] = []
    differentiate = Expert.differentiate

    @contextmanager
    def lane(on: torch.device, *, eager: bool) -> Iterator[None]:
        asked.append((on.type, eager))
        inside.append(True)
        yield
        inside.pop()

    def watched(self, batch, number, index, *attacked):  # type: ignore[no-untyped-def]
        steps.append(bool(inside))
        return differentiate(self, batch, number, index, *attacked)

    monkeypatch.setattr(engine, "lane", lane)
    monkeypatch.setattr(Expert, "differentiate", watched)
    finish(small("training.epochs=2", "mixing.warm_up=1", "engine.eager=true"), dataset, tmp_path / "store")
    assert asked == [("cpu", True)] * 4  # two experts, two rounds
    assert steps != []
    assert all(steps)
    assert inside == []


@pytest.mark.parametrize("fails", [False, True])
def test_a_lane_asks_for_the_order_of_streams(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    """By a double of CUDA's: after what was there, before what follows, also where the work fails."""
    cuda = Cuda(monkeypatch)
    around = cuda.current
    with pytest.raises(KeyError) if fails else nullcontext():
        _in_a_lane(cuda, fails=fails)
    assert cuda.noted == ["own waits for around", "own is current", "work", "around waits for own"]
    assert cuda.current is around


def _in_a_lane(cuda: Cuda, *, fails: bool) -> None:
    with engine.lane(CUDA):
        cuda.noted.append("work")
        if fails:
            raise KeyError


@needs_cuda
def test_a_lane_begins_after_what_was_there_and_ends_before_what_follows() -> None:
    """A sum over a stream's borders is right; the streams are different ones, in each thread its own."""
    around, seen, sums = torch.cuda.current_stream(), [], []

    def work() -> None:
        values = torch.ones(1 << 24, device=CUDA).cumsum(0)
        with engine.lane(CUDA):
            seen.append(torch.cuda.current_stream())
            doubled = 2 * values
        sums.append(float(doubled[-1]))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sums == [2.0 * (1 << 24)] * 2
    assert len({around.cuda_stream, *(own.cuda_stream for own in seen)}) == 3
    assert torch.cuda.current_stream() == around


@needs_cuda
def test_a_plain_lane_is_the_stream_that_is_there() -> None:
    """`engine.eager: true` selects the plain way."""
    around = torch.cuda.current_stream()
    with engine.lane(CUDA, eager=True):
        assert torch.cuda.current_stream() == around
