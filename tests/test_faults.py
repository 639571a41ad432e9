"""What may go wrong while a training runs, and that it then goes on to the same bits, or says what to do."""

import errno
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from generalist.data import Dataset
from generalist.errors import BadInput
from generalist.records import EpochRecord
from generalist.store import Store
from generalist.training import Fact, Outcome, Trainer
from tests.training_factory import abandon, digests, finish, small

ROOT = Path(__file__).parent.parent
OFTEN = "training.checkpoint_minutes=1e-9"
"""A state is stored after each step."""


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
    identities = [(type(fact), fact.epoch, getattr(fact, "expert", "")) for fact in facts]
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
    epochs = [(fact.expert, fact.epoch) for fact in facts if isinstance(fact, EpochRecord)]
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


def test_a_diverged_expert_stops_with_all_that_one_wants_to_know(dataset: Dataset, tmp_path: Path) -> None:
    """Expert, epoch, step, loss, gradient norm, the last good state, which key to change."""
    config = small("experts.robust.optimizer.lr=1e6", "training.epochs=3", "training.batch_size=64")
    with pytest.raises(
        BadInput, match=r"expert robust diverged in epoch 1, step \d+ \(loss .*, gradient norm .*\)"
    ) as told:
        finish(config, dataset, tmp_path)
    assert "that after epoch 0, in the store: lower experts.robust.optimizer.lr, which is 1000000.0" in str(told.value)
    done = Trainer(config, dataset, Store(tmp_path)).forecast()
    assert {own.experts: own.stored for own in done if own.round.index == 0} == {("natural",): 2, ("robust",): 0}


def test_a_gradient_norm_is_that_of_all_gradients(dataset: Dataset, tmp_path: Path) -> None:
    """Against autograd on the first batch, where an epoch is one step."""
    from generalist import engine
    from generalist.data import InMemorySamples, epoch

    config = small("training.batch_size=4096", "training.epochs=2", "mixing.warm_up=1")
    facts, _ = finish(config, dataset, tmp_path)
    (record,) = [
        fact for fact in facts if isinstance(fact, EpochRecord) and fact.epoch == 1 and fact.expert == "natural"
    ]
    weights = engine.initial_weights(config.model, dataset.shape, 0)
    model = engine.model_with(config.model, dataset.shape, weights, on=torch.device("cpu")).train()
    (batch,) = epoch(InMemorySamples.of(dataset.train), seed=0, epoch=0, batch_size=4096, augment=())
    loss = torch.nn.functional.cross_entropy(model(batch.images), batch.labels)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    expected = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    assert record.gradient_norm == pytest.approx(float(expected), rel=1e-4)


def test_going_back_ends_with_finite_weights_and_resumes_to_the_same_bits(dataset: Dataset, tmp_path: Path) -> None:
    """A rate that diverges is made smaller from the start of that epoch on, for that expert alone."""
    config = small(
        "experts.robust.optimizer.lr=1e3", "training.divergence={factor: 1e-5, retries: 2}", "training.epochs=4", OFTEN
    )
    facts, end = finish(config, dataset, tmp_path / "whole")
    epochs = [fact for fact in facts if isinstance(fact, EpochRecord)]
    rates = {record.learning_rate for record in epochs if record.expert == "robust"}
    assert min(rates) == pytest.approx(1e-2)
    assert {own.learning_rate for own in epochs if own.expert == "natural"} == {0.05}
    assert all(tensor.isfinite().all() for weights in end.learners.values() for tensor in weights.values())
    abandon(config, dataset, tmp_path / "cut", after=4)
    assert digests(finish(config, dataset, tmp_path / "cut")[1]) == digests(end)


@pytest.mark.long
def test_a_step_that_is_too_large_is_told_with_one_that_fits(prepared: Path, tmp_path: Path) -> None:
    """In a process whose memory is limited, as a GPU's is."""
    completed = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(prepared), str(tmp_path)],
        cwd=ROOT,
        env=os.environ | _RETURNED,
        capture_output=True,
        text=True,
    )
    found = re.search(
        r"BadInput: the memory of cpu does not suffice for steps of 1024 images: set training.batch_size=(\d+),",
        completed.stderr,
    )
    assert found, completed.stderr
    assert 1 <= int(found[1]) <= 512


_RETURNED = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
"""So that what was freed counts as free: limits are on addresses, of which glibc otherwise keeps many."""

_LIMITED = """
import resource, sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from generalist.data import Split
from tests.training_factory import finish, load_data, small

data = load_data(Path(sys.argv[1]))
data = replace(data, train=Split(np.tile(data.train.images, (3, 1, 1, 1)), np.tile(data.train.labels, 3)))
config = small("model={name: resnet18, width: 32}", "training.batch_size=1024", "training.epochs=2", "mixing.warm_up=1")
now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + 300_000_000,) * 2)
finish(config, data, Path(sys.argv[2]))
"""
