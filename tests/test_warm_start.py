"""Trainings that start from given weights."""

from collections.abc import Callable
from pathlib import Path

import pytest

from generalist.data import Dataset
from generalist.errors import BadInput
from generalist.store import Store
from generalist.training import Outcome, Trainer
from tests.training_factory import digests, finish, small


def test_a_training_starts_from_given_weights(dataset: Dataset, outcome: Outcome, tmp_path: Path) -> None:
    """Experts whose rate is too small to move stay there; other weights have other keys."""
    from generalist.store import write_tensors

    path = tmp_path / "weights.safetensors"
    write_tensors(path, outcome.learners["global"], {})
    still = [f"experts.{name}.optimizer={{name: sgd, lr: 1e-30}}" for name in ("natural", "robust")]
    warm = small(f"training.initial_weights={path}", "mixing=null", "deploy=expert:natural", *still)
    _, end = finish(warm, dataset, tmp_path / "store")
    assert digests(end)["natural"] == digests(end)["robust"] == digests(outcome)["global"]
    write_tensors(path, outcome.learners["natural"], {})
    work = Trainer(warm, dataset, Store(tmp_path / "store")).forecast()
    assert all(own.stored == own.round.start for own in work)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (
            lambda path: path.unlink(),
            "missing: name weights of an earlier training in training.initial_weights, or null",
        ),
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
        Trainer(small(f"training.initial_weights={path}"), dataset, Store(tmp_path / "store"))


def test_weights_of_another_network_are_told(dataset: Dataset, outcome: Outcome, tmp_path: Path) -> None:
    """With the first name that differs."""
    from generalist.store import write_tensors

    path = tmp_path / "weights.safetensors"
    write_tensors(path, outcome.learners["global"], {})
    with pytest.raises(BadInput, match=r"are not of this network \(conv1.bias differs\)"):
        Trainer(small(f"training.initial_weights={path}", "model.width=5"), dataset, Store(tmp_path / "store"))
