"""Facts that don't fit, with a checksum that does: damage like any other."""

import json
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import torch

from generalist import engine
from generalist.attacks import autoattack
from generalist.config.section import plugin
from generalist.data import Dataset
from generalist.errors import BadInput
from generalist.export import read_classifier, write_weights
from generalist.store import Store, read_tensors, write_tensors
from generalist.tensors import ImageShape
from generalist.threats import Threat
from generalist.training import Outcome, Trainer
from generalist.training.speeds import Speeds
from tests.command_line import refused
from tests.resealed import FACTS, reseal
from tests.training_factory import digests, finish, small


def test_a_training_computes_such_states_again(dataset: Dataset, outcome: Outcome, finished: Path) -> None:
    """Trajectories, shares, measurements and speeds; to the same bits, and what was there is set aside."""
    own = [entry for entry in Store(finished).entries() if entry.path is not None]
    assert {"trajectory", "share", "measurement", "speed"} <= {entry.kind for entry in own}
    for entry, facts in zip(own, cycle(["null", "emptied", "nested", "nulls"])):
        assert entry.path is not None
        reseal(entry.path, FACTS[facts])
    assert digests(finish(small(), dataset, finished)[1]) == digests(outcome)
    assert list(finished.glob("*/*.damaged"))


def test_a_training_computes_states_without_tensors_again(dataset: Dataset, outcome: Outcome, finished: Path) -> None:
    """Facts that fit do not help; nor does a kind without the rest."""
    one, other, *_ = (entry for entry in Store(finished).entries() if entry.kind == "trajectory")
    assert one.path is not None
    assert other.path is not None
    reseal(one.path, json.dumps(dict(one.facts)), keep=False)
    reseal(other.path, '{"kind": "trajectory", "epoch": 3}')
    assert digests(finish(small(), dataset, finished)[1]) == digests(outcome)


@pytest.mark.parametrize("facts", FACTS.values(), ids=list(FACTS))
def test_any_facts_are_listed_or_lost(facts: str, tmp_path: Path) -> None:
    """A list of files, and a measurement of time, take them."""
    store = Store(tmp_path)
    speeds = Speeds(store, "this machine")
    speeds.note("x", 3.0)
    (entry,) = store.entries()
    assert entry.path is not None
    reseal(entry.path, facts)
    assert speeds.of("x") is None
    assert [own.kind for own in store.entries()] == ["damaged"]


@pytest.mark.parametrize("facts", FACTS.values(), ids=list(FACTS))
def test_weights_tell_their_network_or_are_refused(facts: str, dataset: Dataset, tmp_path: Path) -> None:
    """At `attack`, and as `training.initial_weights`."""
    path = tmp_path / "global.safetensors"
    config = small()
    weights = engine.initial_weights(config.model, dataset.shape, 0)
    write_weights(path, weights, model=config.model, shape=dataset.shape, data="0" * 64)
    assert read_classifier(path, on=torch.device("cpu")).shape == dataset.shape
    reseal(path, facts)
    with pytest.raises(BadInput, match=r"global\.safetensors") as told:
        read_classifier(path, on=torch.device("cpu"))
    assert "\n" not in str(told.value)


def test_weights_to_start_from_need_no_facts_but_whole_ones(dataset: Dataset, tmp_path: Path) -> None:
    """`training.initial_weights` looks at tensors alone."""
    path, config = tmp_path / "global.safetensors", small()
    weights = engine.initial_weights(config.model, dataset.shape, 0)
    for name, facts in FACTS.items():
        write_weights(path, weights, model=config.model, shape=dataset.shape, data="")
        reseal(path, facts)
        warm = small(f"training.initial_weights={path}")
        if name in {"emptied", "text", "nulls"}:
            assert Trainer(warm, dataset, Store(tmp_path / "store"))
            continue
        with pytest.raises(BadInput, match=r"global\.safetensors"):
            Trainer(warm, dataset, Store(tmp_path / "store"))


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        ({"name": "resnet18", "width": 4}, {}),
        ({"name": "small_cnn", "width": 5}, {}),
        ({"name": "small_cnn", "width": 4}, {"classes": 9}),
        ({"name": "small_cnn", "width": 4}, {"channels": 3}),
        ({"name": "nobody"}, {}),
        ({"name": ["small_cnn"]}, {}),
        ("small_cnn", {}),
        ({"name": "small_cnn", "width": 10**9}, {}),
        ({"name": "small_cnn", "width": 4}, {"std": [0.0]}),
        ({"name": "small_cnn", "width": 4}, {"height": "8"}),
        ({"name": "small_cnn", "width": 4}, {"mean": None}),
        ({"name": "small_cnn", "width": 4}, {"height": 10**18}),
    ],
    ids=range(12),
)
def test_weights_that_name_another_network_are_refused(
    model: object, shape: dict[str, object], dataset: Dataset, tmp_path: Path
) -> None:
    """By the command, before images are looked at."""
    own = plugin("models", {"name": "small_cnn", "width": 4})
    weights = engine.initial_weights(own, dataset.shape, 0)
    told = {"channels": 1, "height": 8, "width": 8, "classes": 10, "mean": [0.3], "std": [0.4], **shape}
    path = tmp_path / "global.safetensors"
    write_tensors(path, weights, {"data": "", "shape": told, "model": model})
    images = tmp_path / "images.npz"
    _images(images, dataset.shape)
    sentence = refused("attack", str(path), "--data", str(images), "--threat", "linf:0.1")
    assert sentence.startswith(str(path))


def _images(path: Path, shape: ImageShape) -> None:
    np.savez(path, images=np.zeros((2, shape.channels, shape.height, shape.width), "uint8"), labels=np.arange(2))


@pytest.mark.parametrize("facts", FACTS.values(), ids=list(FACTS))
def test_the_state_of_an_attack_is_taken_or_refused(facts: str, tmp_path: Path) -> None:
    """Facts that don't fit are told, with what begins anew."""
    images, labels = torch.rand(3, 1, 4, 4), torch.tensor([0, 1, 0])
    state = tmp_path / "state.safetensors"

    def attack() -> None:
        autoattack(_linear, images, labels, Threat("linf", 0.1), attacks=["square"], square_queries=5, state=state)

    attack()
    attack()
    reseal(state, facts)
    with pytest.raises(
        BadInput, match=r"state\.safetensors (is damaged .*: delete it|holds no state of an evaluation)"
    ):
        attack()
    state.unlink()
    attack()
    identity = _facts(state)["identity"]
    reseal(state, json.dumps({"identity": identity, "done": "x", "fooled_by": [None], "row": 0}))
    with pytest.raises(BadInput, match="does not hold what it should"):
        attack()


def _linear(images: torch.Tensor) -> torch.Tensor:
    return images.flatten(1)[:, :3]


def _facts(path: Path) -> dict[str, object]:
    return read_tensors(path, mend="").facts
