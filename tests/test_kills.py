"""What `kill -9` leaves behind, of a training and of its processes: it goes on to the same bits."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import psutil
import pytest

from generalist.data import Dataset
from generalist.errors import BadInput
from generalist.records import EpochRecord
from generalist.store import Store
from generalist.training import Fact, Outcome, run
from tests.processes import another_process, forking, until
from tests.training_factory import digests, finish, small

pytestmark = pytest.mark.long

ROOT = Path(__file__).parent.parent
KILLS = 20
OFTEN = "training.checkpoint_minutes=1e-9"
"""A state is stored after each step."""


@pytest.fixture
def quick_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of experts are forks, which need not import everything again; one test starts them as users do."""
    monkeypatch.setattr("generalist.training.processes._CONTEXT", get_context("fork"))


@forking
@pytest.mark.parametrize("processes", ["one", "experts"])
def test_a_training_killed_twenty_times_ends_with_the_same_bits(
    dataset: Dataset, outcome: Outcome, tmp_path: Path, quick_start: None, processes: str
) -> None:
    """`kill -9` at random moments, in the midst of steps and of writing; each time it goes on from its store."""
    store, moments = tmp_path / "store", random.Random(0)
    end = store / "end"
    for kill in range(KILLS):
        how = (f"training.processes={processes}", OFTEN if kill % 2 else "seed=0")
        with another_process(partial(_train_to_the_end, dataset, store, how)):
            until(store.exists)
            give_up = time.monotonic() + moments.uniform(0.05, 0.6)
            while time.monotonic() < give_up and not end.exists():
                time.sleep(0.005)
        if end.exists():
            assert end.read_text(encoding="ascii") == str(digests(outcome))
            shutil.rmtree(store)
    assert digests(finish(small(OFTEN), dataset, store)[1]) == digests(outcome)


def _train_to_the_end(dataset: Dataset, store: Path, how: tuple[str, ...]) -> None:
    done = digests(finish(small(*how), dataset, store)[1])
    (store / "end.half").write_text(str(done), encoding="ascii")
    (store / "end.half").replace(store / "end")


def test_a_program_killed_with_sigkill_goes_on_to_the_same_bits(
    dataset: Dataset, prepared: Path, outcome: Outcome, tmp_path: Path
) -> None:
    """A program with other hashes of strings, and experts in processes of their own, which end with it."""
    store = tmp_path / "store"
    process = subprocess.Popen([sys.executable, "-c", _PROGRAM, str(prepared), str(store)], cwd=ROOT)
    until(lambda: len(list(store.glob("*/*.safetensors"))) > 6 or process.poll() is not None)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []
    assert digests(finish(small(), dataset, store)[1]) == digests(outcome)


_PROGRAM = """
from pathlib import Path
from tests.training_factory import finish, load_data, small
import sys

if __name__ == "__main__":
    finish(small("training.processes=experts", "training.checkpoint_minutes=1e-9"), load_data(Path(sys.argv[1])), Path(sys.argv[2]))
"""


def test_a_step_inside_an_epoch_is_gone_on_from(
    dataset: Dataset, outcome: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped at a step of the second epoch, only what follows is trained; the records are those of whole epochs."""
    from generalist.experts import Expert

    facts, _ = finish(small(), dataset, tmp_path / "whole")
    differentiate, seen = Expert.differentiate, []

    def counted(self, batch, number, index, *attacked):  # type: ignore[no-untyped-def]
        seen.append((self.epoch, index))
        if len(seen) == 8:
            raise KeyboardInterrupt
        return differentiate(self, batch, number, index, *attacked)

    monkeypatch.setattr(Expert, "differentiate", counted)
    once_an_epoch = small(OFTEN, "training.checkpoint_epochs=4")
    with pytest.raises(KeyboardInterrupt):
        run(once_an_epoch, dataset, Store(tmp_path / "cut"))
    stopped = seen[-1]
    assert stopped[1] > 0
    again, end = finish(once_an_epoch, dataset, tmp_path / "cut")
    assert seen[8] == stopped
    assert digests(end) == digests(outcome)
    told = {(own.expert, own.epoch): own.loss for own in again if isinstance(own, EpochRecord)}
    assert told == {(fact.expert, fact.epoch): fact.loss for fact in facts if isinstance(fact, EpochRecord)}
    assert not [entry for entry in Store(tmp_path / "cut").entries() if entry.kind == "begun"]


@forking
def test_experts_in_processes_of_their_own_give_the_same_bits(
    dataset: Dataset, outcome: Outcome, tmp_path: Path, quick_start: None
) -> None:
    """Records come as they are made, from both; nobody is left."""
    before = set(psutil.Process().children())
    facts, end = finish(small("training.processes=experts"), dataset, tmp_path)
    assert digests(end) == digests(outcome)
    assert {fact.expert for fact in facts if isinstance(fact, EpochRecord)} == {"natural", "robust"}
    assert set(psutil.Process().children()) - before <= _trackers()


def _trackers() -> set[psutil.Process]:
    """Python's own, of shared memory."""
    return {child for child in psutil.Process().children() if _is_tracker(child)}


def _is_tracker(process: psutil.Process) -> bool:
    try:
        return "resource_tracker" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # it ended as we looked; psutil's ZombieProcess is one
        return False


@forking
def test_a_process_that_was_killed_is_told_in_a_sentence(dataset: Dataset, tmp_path: Path, quick_start: None) -> None:
    """As by a system short of memory; what is stored stays, and the others end too."""

    def kill(_: Fact) -> None:
        for child in set(psutil.Process().children()) - _trackers():
            child.kill()

    with pytest.raises(BadInput, match=r"ended by itself \(exit code -9.*goes on from what is stored"):
        run(small("training.processes=experts"), dataset, Store(tmp_path), kill)
