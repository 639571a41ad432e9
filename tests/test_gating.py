"""FAWA: an average that follows the weights once an epoch, where the worst class stands often enough."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from generalist import engine
from generalist.config import Config
from generalist.data import Dataset
from generalist.errors import BadInput
from generalist.evaluation.accuracy import attacked
from generalist.experts import Expert
from generalist.store import Store
from generalist.tensors import Weights
from generalist.training import Trainer, gating
from tests.training_factory import abandon, digests, finish, small

EPOCHS = 4
DECAY = 0.6
GATE = "{worst_class: SHARE, threat: {norm: linf, eps: 0.02}, attack: {steps: 2}}"


def config(share: float | None, *overrides: str) -> Config:
    """Return a small training of one expert whose worst class must have that robust accuracy."""
    gate = () if share is None else (f"experts.robust.gate={GATE.replace('SHARE', str(share))}",)
    alone = (
        "mixing=null",
        "experts.robust.objective={name: natural}",
        "deploy=expert:robust",
        f"training.epochs={EPOCHS}",
        "training.batch_size=32",
        "model.width=8",
        "experts.robust.optimizer.lr=0.1",
    )
    return small(*alone, f"experts.robust.averaging={DECAY}", *gate, *overrides)


def states(own: Config, dataset: Dataset, store: Path) -> Iterator[Any]:
    """Train, and return the robust expert's state after each epoch."""
    finish(own, dataset, store)
    training = Trainer(own, dataset, Store(store))
    for _, positions in sorted(training.ends().items()):
        yield training.states.load(positions["robust"])[0]


def worst(own: Config, weights: Weights, dataset: Dataset) -> float:
    """Return the least robust accuracy of a class, class by class."""
    gate = own.experts["robust"].gate
    assert gate is not None
    model = engine.model_with(own.model, dataset.shape, weights, on=torch.device("cpu"))
    split = dataset.validation
    stands = attacked(model, split, gate.threat, gate.attack, seed=0)[1]
    labels = np.asarray(split.labels)
    return min(stands[labels == k].sum() / (labels == k).sum() for k in range(10))


@pytest.fixture(scope="module")
def store(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a finished training with a gate."""
    folder = tmp_path_factory.mktemp("gated") / "store"
    finish(config(0.3), dataset, folder)
    return folder


@pytest.mark.parametrize("threshold", [0.3, 0.4])  # the last epoch passes, or it doesn't after one that did
def test_the_average_follows_where_the_worst_class_stands(dataset: Dataset, store: Path, threshold: float) -> None:
    """Epoch by epoch, in float64: until the first one that passes it is the weights, and it begins there."""
    own, before, decisions = config(threshold), None, []
    for state in states(own, dataset, store):
        accepted = worst(own, state.weights, dataset) >= threshold
        expected = {name: tensor.double() for name, tensor in state.weights.items()}
        if any(decisions):
            keep = DECAY if accepted else 1.0
            expected = {name: keep * before[name] + (1 - keep) * tensor for name, tensor in expected.items()}
        for name, tensor in state.average.items():
            torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-6)
        before, decisions = {name: tensor.double() for name, tensor in state.average.items()}, [*decisions, accepted]
    assert len(decisions) == EPOCHS and {*decisions} == {True, False} and decisions[-2]


@pytest.mark.parametrize("share", [0, 1])
def test_a_gate_that_is_open_or_closed(dataset: Dataset, tmp_path: Path, share: int) -> None:
    """Open, each epoch counts; closed, what is deployed are the weights."""
    *_, last = states(config(share, "training.epochs=2"), dataset, tmp_path)
    same = all(torch.equal(last.average[name], tensor) for name, tensor in last.weights.items())
    assert same == (share == 1)


def test_it_goes_on_to_the_same_bits_and_the_weights_are_those_without_a_gate(
    dataset: Dataset, store: Path, tmp_path: Path
) -> None:
    """What was let in is a part of the state; the gate changes the average alone."""
    whole = finish(config(0.3), dataset, store)[1]
    abandon(config(0.3), dataset, tmp_path / "left", after=3)
    assert digests(finish(config(0.3), dataset, tmp_path / "left")[1]) == digests(whole)
    *_, gated = states(config(0.3), dataset, store)
    *_, free = states(config(None), dataset, store)
    assert all(torch.equal(gated.weights[name], tensor) for name, tensor in free.weights.items())
    assert any(not torch.equal(gated.average[name], tensor) for name, tensor in free.average.items())


def test_it_measures_the_weights_themselves_in_eval_mode(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the average, and not a network in training."""
    seen: list[bool] = []
    plain = gating.worst_class

    def watched(expert: Expert, *rest: Any) -> float:
        network = expert.learner.frozen.network
        live = dict(expert.learner.model.named_parameters())
        seen.append(not network.training and all(torch.equal(p, live[n]) for n, p in network.named_parameters()))
        return plain(expert, *rest)

    monkeypatch.setattr(gating, "worst_class", watched)
    finish(config(0.3, "training.epochs=2"), dataset, tmp_path)
    assert seen == [True, True]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("experts.robust.averaging=false",), "'gate' is without effect without an average"),
        (("experts.robust.gate.worst_class=2",), "worst_class"),
        (("model.condition={encoding: raw}", "evaluation.conditions=[1]"), "gate can't be had with model.condition"),
    ],
)
def test_what_can_t_be_is_refused(change: tuple[str, ...], sentence: str) -> None:
    """In one sentence that says how to mend it."""
    oat = "{name: oat, threat: {norm: linf, eps: 0.1}}"
    both = [f"experts.{name}.objective={oat}" for name in ("natural", "robust")] if len(change) > 1 else []
    with pytest.raises(BadInput, match=sentence):
        config(0.3, *both, *change)
