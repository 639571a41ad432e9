"""What may go wrong while a training runs, and that it then goes on to the same bits, or says what to do."""

import errno
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch

from generalist.data import Dataset
from generalist.errors import BadInput
from generalist.records import Accuracy, EpochRecord, Measured
from generalist.store import Store
from generalist.training import Fact, Outcome, Training, alarm, run
from tests.processes import another_process, forking, until
from tests.training_factory import digests, finish, small

ROOT = Path(__file__).parent.parent
KILLS = 20
OFTEN = "training.checkpoint_minutes=1e-9"
"""A state is stored after each step."""


# --- kill -9 --------------------------------------------------------------------------------------


@forking
def test_a_training_killed_twenty_times_ends_with_the_same_bits(
    dataset: Dataset, outcome: Outcome, tmp_path: Path
) -> None:
    """`kill -9` at random moments, in the midst of steps and of writing; each time it goes on from its store."""
    store, moments = tmp_path / "store", random.Random(0)
    kills = finished = 0
    while kills < KILLS:
        end = store / "end"
        override = OFTEN if kills % 2 else "seed=0"
        with another_process(partial(_train_to_the_end, dataset, store, override)):
            until(lambda: store.exists())
            give_up = time.monotonic() + moments.uniform(0.05, 0.6)
            while time.monotonic() < give_up and not end.exists():
                time.sleep(0.005)
        kills += 1
        if end.exists():
            finished += 1
            assert end.read_text(encoding="ascii") == str(digests(outcome))
            shutil.rmtree(store)
    assert digests(finish(small(OFTEN), dataset, store)[1]) == digests(outcome)


def _train_to_the_end(dataset: Dataset, store: Path, override: str) -> None:
    done = digests(finish(small(override), dataset, store)[1])
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
    step, seen = Expert.step, []

    def counted(self, batch, number, index):  # type: ignore[no-untyped-def]
        seen.append((self.epoch, index))
        if len(seen) == 8:
            raise KeyboardInterrupt
        return step(self, batch, number, index)

    monkeypatch.setattr(Expert, "step", counted)
    once_an_epoch = small(OFTEN, "training.checkpoint=4")
    steps = run(once_an_epoch, dataset, Store(tmp_path / "cut"))
    with pytest.raises(KeyboardInterrupt):
        list(steps)
    stopped = seen[-1]
    assert stopped[1] > 0
    again, end = finish(once_an_epoch, dataset, tmp_path / "cut")
    assert seen[8] == stopped
    assert digests(end) == digests(outcome)
    told = {(own.expert, own.epoch): own.loss for own in again if isinstance(own, EpochRecord)}
    assert told == {(own.expert, own.epoch): own.loss for own in facts if isinstance(own, EpochRecord)}
    assert not [entry for entry in Store(tmp_path / "cut").entries() if entry.kind == "begun"]


# --- processes --------------------------------------------------------------------------------------


def test_experts_in_processes_of_their_own_give_the_same_bits(
    dataset: Dataset, outcome: Outcome, tmp_path: Path
) -> None:
    """Records come as they are made, from both; nobody is left."""
    before = set(psutil.Process().children())
    facts, end = finish(small("training.processes=experts"), dataset, tmp_path)
    assert digests(end) == digests(outcome)
    assert {own.expert for own in facts if isinstance(own, EpochRecord)} == {"natural", "robust"}
    assert set(psutil.Process().children()) - before <= _trackers()


def _trackers() -> set[psutil.Process]:
    """Python's own, of shared memory."""
    return {own for own in psutil.Process().children() if "resource_tracker" in " ".join(own.cmdline())}


def test_a_process_that_was_killed_is_told_in_a_sentence(dataset: Dataset, tmp_path: Path) -> None:
    """As by a system short of memory; what is stored stays, and the others end too."""
    steps = run(small("training.processes=experts"), dataset, Store(tmp_path))
    next(steps)
    for child in set(psutil.Process().children()) - _trackers():
        child.kill()
    with pytest.raises(BadInput, match=r"ended by itself \(exit code -9.*goes on from what is stored"):
        list(steps)


# --- the store ------------------------------------------------------------------------------------


def test_damaged_states_are_set_aside_and_computed_again(
    dataset: Dataset, outcome: Outcome, finished: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every tenth file, truncated or altered; the facts are told once, the bits are the same."""
    files = sorted(finished.glob("*/*.safetensors"))
    damaged = files[::10]
    for index, path in enumerate(damaged):
        content = path.read_bytes()
        path.write_bytes(content[:-3] if index % 2 else content[:-1] + bytes([content[-1] ^ 1]))
    facts, end = finish(small(), dataset, finished)
    assert digests(end) == digests(outcome)
    identities = [(type(own), own.epoch, getattr(own, "expert", "")) for own in facts]
    assert len(identities) == len(set(identities))
    aside = list(finished.glob("*/*.damaged"))
    assert aside
    assert len([1 for record in caplog.records if "was set aside as" in record.message]) == len(aside)


def test_a_state_that_goes_while_it_is_needed_is_computed_again(
    dataset: Dataset, outcome: Outcome, tmp_path: Path
) -> None:
    """Somebody prunes the store between two rounds."""

    def pruned(fact: Fact) -> None:
        if isinstance(fact, EpochRecord) and (fact.expert, fact.epoch) == ("robust", 3):
            for path in tmp_path.glob("*/*.safetensors"):
                path.unlink()

    facts, end = finish(small(), dataset, tmp_path, watch=pruned)
    assert digests(end) == digests(outcome)
    epochs = [(own.expert, own.epoch) for own in facts if isinstance(own, EpochRecord)]
    assert len(epochs) == len(set(epochs)) == 10


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs rights that this user lacks")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_told_and_nothing_is_lost(dataset: Dataset, outcome: Outcome, small_disk: Path) -> None:
    """One sentence; with room made, the same command ends with the same bits, and no half file was left."""
    store, filler = small_disk / "store", small_disk / "filler"
    filler.write_bytes(b"0" * 200_000)
    with pytest.raises(BadInput, match=rf"{os.strerror(errno.ENOSPC)}\): make room on that disk, and the same command"):
        finish(small(), dataset, store)
    assert [path.name for path in store.glob("*/.*")] == []
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=30m", small_disk], check=True)
    assert digests(finish(small(), dataset, store)[1]) == digests(outcome)


# --- numbers --------------------------------------------------------------------------------------


def test_a_diverged_expert_stops_with_all_that_one_wants_to_know(dataset: Dataset, tmp_path: Path) -> None:
    """Expert, epoch, step, loss, gradient norm, the last good state, which key to change."""
    config = small("experts.robust.optimizer.lr=1e20", "training.epochs=3", "mixing.warm_up=2")
    with pytest.raises(
        BadInput, match=r"expert robust diverged in epoch 1, step \d+ \(loss .*, gradient norm .*\)"
    ) as told:
        finish(config, dataset, tmp_path)
    assert "that after epoch 0, in the store: lower experts.robust.optimizer.lr, which is 1e+20" in str(told.value)
    done = Training(config, dataset, Store(tmp_path)).forecast()
    assert {own.unit: own.stored for own in done if own.round.index == 0} == {("natural",): 2, ("robust",): 0}


def test_a_gradient_norm_is_that_of_all_gradients(dataset: Dataset, tmp_path: Path) -> None:
    """Against autograd on the first batch, where an epoch is one step."""
    from generalist import engine
    from generalist.data import Resident, epoch

    config = small("training.batch_size=4096", "training.epochs=2", "mixing.warm_up=1")
    facts, _ = finish(config, dataset, tmp_path)
    (record,) = [own for own in facts if isinstance(own, EpochRecord) and own.epoch == 1 and own.expert == "natural"]
    weights = engine.initial_weights(config.model, dataset.shape, 0)
    model = engine.model_with(config.model, dataset.shape, weights, on=torch.device("cpu")).train()
    (batch,) = epoch(Resident.of(dataset.train), seed=0, epoch=0, batch_size=4096, augment=())
    loss = torch.nn.functional.cross_entropy(model(batch.images), batch.labels)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    expected = torch.cat([own.flatten() for own in gradients]).norm()
    assert record.gradient_norm == pytest.approx(float(expected), rel=1e-4)


def test_going_back_ends_with_finite_weights_and_resumes_to_the_same_bits(dataset: Dataset, tmp_path: Path) -> None:
    """A rate that diverges is made smaller from the start of that epoch on, for that expert alone."""
    config = small(
        "experts.robust.optimizer.lr=1e3", "training.divergence={factor: 1e-5, retries: 2}", "training.epochs=4", OFTEN
    )
    facts, end = finish(config, dataset, tmp_path / "whole")
    epochs = [own for own in facts if isinstance(own, EpochRecord)]
    rates = {own.learning_rate for own in epochs if own.expert == "robust"}
    assert min(rates) == pytest.approx(1e-2)
    assert {own.learning_rate for own in epochs if own.expert == "natural"} == {0.05}
    assert all(tensor.isfinite().all() for weights in end.learners.values() for tensor in weights.values())
    steps = run(config, dataset, Store(tmp_path / "cut"))
    for _ in range(4):
        next(steps)
    steps.close()
    assert digests(finish(config, dataset, tmp_path / "cut")[1]) == digests(end)


def test_a_step_that_is_too_large_is_told_with_one_that_fits(prepared: Path, tmp_path: Path) -> None:
    """In a process whose memory is limited, as a GPU's is."""
    told = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(prepared), str(tmp_path)],
        cwd=ROOT,
        env=os.environ | _RETURNED,
        capture_output=True,
        text=True,
    )
    found = re.search(
        r"BadInput: the memory of cpu does not suffice for steps of 1024 images: set training.batch_size=(\d+),",
        told.stderr,
    )
    assert found, told.stderr
    assert 1 <= int(found[1]) <= 512


_RETURNED = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
"""So that what was freed counts as free: limits are on addresses, of which glibc otherwise keeps many."""

_LIMITED = """
import resource, sys
from pathlib import Path
from tests.training_factory import finish, load_data, small

data = load_data(Path(sys.argv[1]))
config = small("model={name: resnet18, width: 32}", "training.batch_size=1024", "training.epochs=2", "mixing.warm_up=1")
now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + 300_000_000,) * 2)
finish(config, data, Path(sys.argv[2]))
"""


# --- warm starts --------------------------------------------------------------------------------


def test_a_training_starts_from_given_weights(dataset: Dataset, outcome: Outcome, tmp_path: Path) -> None:
    """Experts whose rate is too small to move stay there; other weights have other keys."""
    from generalist.store import write_tensors

    path = tmp_path / "weights.safetensors"
    write_tensors(path, outcome.learners["global"], {})
    still = [f"experts.{name}.optimizer={{name: sgd, lr: 1e-30}}" for name in ("natural", "robust")]
    warm = small(f"training.initial={path}", "mixing=null", "deploy=expert:natural", *still)
    _, end = finish(warm, dataset, tmp_path / "store")
    assert digests(end)["natural"] == digests(end)["robust"] == digests(outcome)["global"]
    write_tensors(path, outcome.learners["natural"], {})
    work = Training(warm, dataset, Store(tmp_path / "store")).forecast()
    assert all(own.stored == own.round.start for own in work)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda path: path.unlink(), "is missing: name weights of an earlier training in training.initial, or null"),
        (lambda path: path.write_bytes(b"no"), "is damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"), "checksum differs"),
    ],
)
def test_weights_that_can_not_be_read_are_told(
    dataset: Dataset, outcome: Outcome, tmp_path: Path, spoil: Callable[[Path], object], told: str
) -> None:
    """Before anything is done."""
    from generalist.store import write_tensors

    path = tmp_path / "weights.safetensors"
    write_tensors(path, outcome.learners["global"], {})
    spoil(path)
    with pytest.raises(BadInput, match=told):
        Training(small(f"training.initial={path}"), dataset, Store(tmp_path / "store"))


def test_weights_of_another_network_are_told(dataset: Dataset, outcome: Outcome, tmp_path: Path) -> None:
    """With the first name that differs."""
    from generalist.store import write_tensors

    path = tmp_path / "weights.safetensors"
    write_tensors(path, outcome.learners["global"], {})
    with pytest.raises(BadInput, match=r"are not of this network \(conv1.bias differs\)"):
        Training(small(f"training.initial={path}", "model.width=5"), dataset, Store(tmp_path / "store"))


# --- alarms -------------------------------------------------------------------------------------


def validated(epoch: int, robust: int, fgsm: int | None, expert: str = "robust") -> EpochRecord:
    """An epoch of an expert with accuracies in percent of 100 images."""
    measured = Measured(
        natural=Accuracy(correct=90, n=100),
        robust=Accuracy(correct=robust, n=100),
        fgsm=None if fgsm is None else Accuracy(correct=fgsm, n=100),
    )
    return EpochRecord(
        expert=expert,
        epoch=epoch,
        loss=1,
        accuracy=1,
        gradient_norm=1,
        learning_rate=1,
        images=1,
        seconds=1,
        validation=measured,
    )


def test_robustness_to_one_step_alone_gives_an_alarm() -> None:
    """Only of an expert that was robust to many steps before, and trains on attacks."""
    before = [validated(1, 30, 35), validated(2, 40, 46), validated(1, 80, 82, expert="other")]
    assert alarm(before, validated(3, 38, 45)) is None
    assert alarm(before, validated(3, 5, 20)) is None
    assert alarm(before, validated(3, 5, None)) is None
    told = alarm(before, validated(3, 5, 60))
    assert told is not None
    assert "catastrophic overfitting of robust in epoch 3: robust accuracy fell from 40.0 to 5.0 %" in told
    assert alarm([], validated(1, 0, 60)) is None


def test_experts_that_train_on_attacks_are_measured_against_fgsm(whole: tuple[Path, list[Fact], Outcome]) -> None:
    """One step, at most as strong as many."""
    by_expert = {own.expert: own.validation for own in whole[1] if isinstance(own, EpochRecord)}
    assert by_expert["natural"] is not None and by_expert["natural"].fgsm is None
    robust = by_expert["robust"]
    assert robust is not None and robust.fgsm is not None
    assert robust.fgsm.n == robust.robust.n
