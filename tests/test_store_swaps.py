"""A file of the store under another one's name changes no result: it is lost, and computed again."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from generalist import engine
from generalist.data import Dataset
from generalist.evaluation import attack_shard
from generalist.store import Entry, StateLost, Store, read_tensors, write_tensors
from generalist.training import Outcome
from tests.training_factory import abandon, digests, finish, first, small

KINDS = ("trajectory", "share", "measurement")
FURTHER = (1, 11)
"""So many files on is the one whose name a file bears: of the same kind and of others."""


def test_no_file_of_a_store_is_taken_for_another(
    dataset: Dataset, outcome: Outcome, finished: Path, tmp_path: Path
) -> None:
    """Each under the names of two others, with the files of another seed, another objective and an average of one's own among them."""
    finish(
        small("seed=1", "training.epochs=3", "experts.robust.objective.name=trades", "experts.natural.averaging=0.9"),
        dataset,
        finished,
    )
    store, trial = Store(finished), Store(tmp_path / "trial")
    own = _entries(store)
    assert {"trajectory", "share", "measurement", "speed", "learner"} <= {entry.kind for entry in own}
    for one, other in (
        (one, own[(place + further) % len(own)]) for place, one in enumerate(own) for further in FURTHER
    ):
        target = trial.path(other.key)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.hardlink_to(_path(one))
        with pytest.raises(StateLost, match="the state of another key"):
            trial.load(other.key)


@pytest.mark.parametrize("kinds", [*((kind,) for kind in KINDS), KINDS], ids=", ".join)
def test_a_training_over_swapped_files_ends_with_the_same_bits(
    kinds: tuple[str, ...], dataset: Dataset, outcome: Outcome, finished: Path
) -> None:
    """Every file of one kind, or of all, bears another one's name, and all of it is told as lost."""
    own = [entry for entry in _entries(Store(finished)) if entry.kind in kinds]
    contents = [_path(entry).read_bytes() for entry in own]
    for entry, content in zip(own, contents[1:] + contents[:1], strict=True):
        _path(entry).write_bytes(content)
    assert digests(finish(small(), dataset, finished)[1]) == digests(outcome)
    assert list(finished.glob("*/*.damaged"))


def _changed(part: str, change: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with one floating tensor of that part changed."""
    name = next(
        name for name, tensor in tensors.items() if name.startswith(part) and tensor.is_floating_point() and tensor.ndim
    )
    found = dict(tensors)
    own = found.pop(name)
    if change == "renamed":
        found[f"{name}x" if part != "optimizer/" else "optimizer/999/momentum_buffer"] = own
    elif change == "longer":
        found[name] = torch.cat([own, own])
    elif change == "of another dtype":
        found[name] = own.double()
    elif change == "infinite":
        found[name] = torch.full_like(own, torch.inf)
    return found


@pytest.mark.parametrize("changes", [("renamed", "longer"), ("of another dtype", "infinite")])
@pytest.mark.parametrize(("kind", "part"), [("trajectory", "weights/"), ("trajectory", "optimizer/"), ("share", "")])
def test_a_state_that_does_not_fit_its_network_is_lost(
    kind: str, part: str, changes: tuple[str, str], dataset: Dataset, outcome: Outcome, finished: Path
) -> None:
    """Though its key and its checksum agree; each expert's is changed in its own way."""
    own = [entry for entry in _entries(Store(finished)) if entry.kind == kind and entry.facts["epoch"] == 5]
    for entry, change in zip(own, changes, strict=True):
        stored = read_tensors(_path(entry), mend="")
        write_tensors(_path(entry), _changed(part, change, stored.tensors), stored.facts)
    assert digests(finish(small(), dataset, finished)[1]) == digests(outcome)
    assert len(list(finished.glob("*/*.damaged"))) == 2


def test_a_begun_unit_of_others_is_lost(dataset: Dataset, outcome: Outcome, tmp_path: Path) -> None:
    """What lies under a group on its way is that group, or it begins anew."""
    stopped = {name: tmp_path / name for name in ("one", "other")}
    for name, folder in stopped.items():
        abandon(small("training.checkpoint_epochs=5", f"seed={int(name == 'other')}"), dataset, folder, after=1)
    (one,), (other,) = ([own for own in _entries(Store(folder)) if own.kind == "begun"] for folder in stopped.values())
    shutil.copy(_path(other), _path(one))
    assert digests(finish(small("training.checkpoint_epochs=5"), dataset, stopped["one"])[1]) == digests(outcome)
    assert _path(one).with_name(f"{_path(one).name}.damaged").exists()


@pytest.mark.long
def test_attack_states_under_each_other_s_names_change_no_verdict(dataset: Dataset, tmp_path: Path) -> None:
    """Of two threats, the cascade and the stronger attack after it; and a state of the store among them."""
    config = small("evaluation.extra_attack=true", "evaluation.threats=[{norm: linf, eps: 0.15}, {norm: l2, eps: 0.5}]")
    weights = engine.initial_weights(config.model, dataset.shape, 0)
    model = engine.model_with(config.model, dataset.shape, weights, on=torch.device("cpu"))
    split = first(dataset.test, 8)

    def verdicts() -> dict[str, list[object]]:
        found = attack_shard(model, split, range(8), options=config.evaluation, states=tmp_path)
        return {name: array.tolist() for name, array in found.arrays.items()}

    before = verdicts()
    states = sorted(tmp_path.glob("*.safetensors"))
    contents = [path.read_bytes() for path in states]
    assert len(states) > 2
    for path, content in zip(states, contents[1:] + contents[:1], strict=True):
        path.write_bytes(content)
    assert verdicts() == before
    write_tensors(states[0], weights, {"kind": "share", "key": "ab" * 32})
    assert verdicts() == before
    assert {path.name for path in tmp_path.glob("*.damaged")} == {f"{path.name}.damaged" for path in states}


def _entries(store: Store) -> list[Entry]:
    return [entry for entry in store.entries() if entry.path is not None]


def _path(entry: Entry) -> Path:
    assert entry.path is not None
    return entry.path
