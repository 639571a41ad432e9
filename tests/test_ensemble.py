"""Peers together: the mean of their probabilities, as a learner that is measured, attacked, deployed and read back."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from generalist import engine
from generalist.config import Config, ModelOptions
from generalist.data import Dataset
from generalist.ensemble import joined, parts
from generalist.errors import BadInput
from generalist.evaluation import evaluate, subset
from generalist.export import check_parity, export, read_classifier, write_weights
from generalist.models import DECISION, Classifier
from generalist.store import tensors_digest
from generalist.tensors import Weights
from tests.objective_factory import SHAPE
from tests.training_factory import finish, small

MUTUAL = {"name": "mutual", "base": {"name": "adversarial", "threat": {"norm": "linf", "eps": 0.15}}}
STUDENT = {"name": "mutual", "base": {"name": "natural"}, "student": True}
CPU = torch.device("cpu")


def peers(*overrides: str, first: dict[str, Any] = MUTUAL, second: dict[str, Any] = MUTUAL) -> Config:
    """Return a small configuration of two peers, of which the first is deployed unless said."""
    written = {"natural": first, "robust": second}
    objectives = [f"experts.{name}.objective={json.dumps(own)}" for name, own in written.items()]
    few = [f"experts.{name}.objective.base.attack.steps=2" for name, own in written.items() if own is MUTUAL]
    return small(
        "mixing=null", "deploy=expert:natural", "training.epochs=2", "training.own_initial_weights=true",
        *objectives, *few, "evaluation.images=8", *overrides,
    )  # fmt: skip


def two(options: ModelOptions) -> list[Weights]:
    """Return the weights of two networks."""
    return [engine.initial_weights(options, SHAPE, 0, number) for number in range(2)]


def slow_mean(members: list[Classifier], images: Tensor) -> Tensor:
    """Return the mean of the probabilities of all members in float64, image by image."""
    said = [member.double().decision(member(images.double())).softmax(1) for member in members]
    return sum(said, torch.zeros_like(said[0])) / len(said)


@pytest.mark.parametrize("head", ["{name: plain}", "{name: dummy}"])
@pytest.mark.parametrize("model", ["{name: small_cnn, width: 3}", "{name: preact_resnet18, width: 2}"])
def test_it_decides_by_the_mean_of_probabilities(model: str, head: str) -> None:
    """Whose logarithm its logits are; its weights are those of its members, and nothing else."""
    options = small(f"model={model}", f"model.head={head}", *_none_trained(head)).model
    own = two(options)
    together = joined(own)
    assert [tensors_digest(part) for part in parts(together)] == [tensors_digest(part) for part in own]
    assert [tensors_digest(part) for part in parts(own[0])] == [tensors_digest(own[0])]
    network = engine.model_with(options, SHAPE, together, on=CPU)
    assert set(network.state_dict()) == set(together)
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = slow_mean([engine.model_with(options, SHAPE, part, on=CPU) for part in own], images)
    found = network.decision(network(images))
    torch.testing.assert_close(found.double().exp(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(network.views()[DECISION](images), found)
    assert network.features(images).shape[1] == 2 * engine.model_with(options, SHAPE, own[0], on=CPU).linear.in_features


def _none_trained(head: str) -> tuple[str, ...]:
    """Return the overrides without which a head has no objective."""
    hot = {"name": "two_hot", "base": {"name": "natural"}}
    objectives = (f"experts.{name}.objective={json.dumps(hot)}" for name in ("natural", "robust"))
    return tuple(objectives) if "dummy" in head else ()


def test_attacks_see_all_views_of_its_members() -> None:
    """The mean of logits, which saturates later than the decision; with dummy classes their views, and DAWA's losses."""
    plain = small().model
    network = engine.model_with(plain, SHAPE, joined(two(plain)), on=CPU)
    images, labels = torch.rand(4, 1, 8, 8), torch.arange(4)
    members = [engine.model_with(plain, SHAPE, part, on=CPU) for part in two(plain)]
    mean = torch.stack([member(images) for member in members]).mean(dim=0)
    torch.testing.assert_close(network.views()["logits"](images), mean)
    assert set(network.views()) == {DECISION, "logits"} and network.nonadaptive() == {}

    dummy = small("model.head={name: dummy}", *_none_trained("dummy")).model
    both = engine.model_with(dummy, SHAPE, joined(two(dummy)), on=CPU)
    members = [engine.model_with(dummy, SHAPE, part, on=CPU) for part in two(dummy)]
    assert set(both.views()) == {*members[0].views()} | {"logits"} and set(both.nonadaptive()) == {"raw"}
    joint: Any = both.views()["joint"]
    single: list[Any] = [member.views()["joint"] for member in members]
    expected = torch.stack([one.loss(one(images), labels) for one in single]).mean(dim=0)
    torch.testing.assert_close(joint.loss(joint(images), labels), expected)


@pytest.mark.long
def test_peers_are_evaluated_together_and_their_ensemble_can_be_deployed(dataset: Dataset, tmp_path: Path) -> None:
    """Measured with columns of its own, one ONNX graph that is as torch, and weights that are read back."""
    config = peers("deploy=ensemble")
    outcome = finish(config, dataset, tmp_path / "store")[1]
    assert list(outcome.learners) == ["natural", "robust", "ensemble"]
    weights = outcome.learners["ensemble"]
    assert tensors_digest(weights) == outcome.chosen.digest
    assert outcome.chosen.validation.robust.n == len(dataset.validation)
    if outcome.chosen.epoch == config.training.epochs:
        own = [outcome.learners[name] for name in ("natural", "robust")]
        assert tensors_digest(joined(own)) == tensors_digest(weights)
    assert finish(config, dataset, tmp_path / "store")[1].chosen == outcome.chosen

    network, split = (
        engine.model_with(config.model, dataset.shape, weights, on=CPU),
        subset(dataset.test, config.evaluation),
    )
    found = evaluate(
        network, split, options=config.evaluation, class_names=dataset.class_names, name="ensemble", epoch=2, digest="d"
    )
    assert set(found.evaluation.threats[0].columns) == {"pgd", "cascade", "logits/pgd"}
    export(network, tmp_path / "model.onnx", metadata={}, opset=18)
    attacked = torch.from_numpy(found.adversarial)
    images = np.asarray(split.images)
    assert check_parity(network, tmp_path / "model.onnx", images, attacked, tolerance=1e-4, on="cpu").passed

    write_weights(tmp_path / "w.safetensors", weights, model=config.model, shape=dataset.shape, data=dataset.digest)
    again = read_classifier(tmp_path / "w.safetensors", on=CPU)
    torch.testing.assert_close(again(attacked), network(attacked), rtol=0, atol=0)
    damaged = {name: tensor for name, tensor in weights.items() if name != "members.1.linear.bias"}
    write_weights(tmp_path / "d.safetensors", damaged, model=config.model, shape=dataset.shape, data=dataset.digest)
    with pytest.raises(BadInput, match="does not tell which network"):
        read_classifier(tmp_path / "d.safetensors", on=CPU)


def test_a_peer_that_is_deployed_is_evaluated_beside_the_ensemble(dataset: Dataset, tmp_path: Path) -> None:
    """The deployed one may be of an earlier epoch; a student isn't a peer, and one peer is no ensemble."""
    outcome = finish(peers(), dataset, tmp_path / "store")[1]
    assert list(outcome.learners) == ["natural", "robust", "ensemble"]
    assert peers(first={"name": "natural"}, second=STUDENT).ensemble == () and peers().ensemble == ("natural", "robust")
    assert small().ensemble == ()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("deploy=ensemble",), "deploy is 'ensemble', but this configuration has only"),
        (
            (
                "mixing=null",
                "deploy=expert:natural",
                "experts.ensemble={objective: {name: natural}, optimizer: {name: sgd, lr: 1}}",
            ),
            "name of all peers together",
        ),
    ],
)
def test_what_can_t_be_is_refused(change: tuple[str, ...], sentence: str) -> None:
    """In one sentence."""
    with pytest.raises(BadInput, match=sentence):
        small(*change)
