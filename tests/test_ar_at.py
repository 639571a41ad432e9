"""AR-AT: its formula in float64, what it counts, and the network beside, which is trained, stored and not deployed."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from generalist import engine
from generalist.config import Config, EngineOptions, ModelOptions
from generalist.data import Dataset
from generalist.errors import BadInput
from generalist.expert_state import initial_tables
from generalist.models import Classifier, build
from generalist.objectives import Learner, Objective
from generalist.store import Store
from generalist.tensors import Batch
from generalist.training import Trainer, ending, make_runner
from tests.objective_factory import SHAPE, THREAT, context, random_batch
from tests.training_factory import abandon, digests, finish, small

ALONE = ("mixing=null", "deploy=expert:robust", "training.epochs=3")
MODELS = ("{name: small_cnn, width: 3}", "{name: preact_resnet18, width: 2}")


def config(*overrides: str) -> Config:
    """Return a small configuration in which the robust expert has this objective."""
    written = {"name": "ar_at", "threat": {"norm": "linf", "eps": 0.15}, "attack": {"steps": 2}}
    return small(*ALONE, f"experts.robust.objective={json.dumps(written)}", *overrides)


def objective(**options: Any) -> Objective:
    """Return the objective with these options."""
    written = {"name": "ar_at", **THREAT, **options}
    own = small(*ALONE, f"experts.robust.objective={json.dumps(written)}").experts["robust"].objective
    assert isinstance(own, Objective)
    return own


def learner_of(own: Objective, options: ModelOptions) -> Learner:
    """Return a network in training, beside what the objective trains along, both with numbers of their own."""
    model = build(options, SHAPE)
    model.load_state_dict(engine.initial_weights(options, SHAPE, 0))
    beside = own.auxiliary(model)
    assert beside is not None
    draw = torch.Generator().manual_seed(3)
    for module in (model, beside):
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.data.add_(0.1 * torch.rand(tensor.shape, generator=draw))
    return Learner(model.train(), engine.FrozenNetwork(model, EngineOptions()), auxiliary=beside.train())


def with_clean_norms(model: Classifier, beside: Any) -> Classifier:
    """Return a copy whose BatchNorms, one by one, are those for clean images."""
    clean, norms = copy.deepcopy(model), iter(beside.norms)
    for layer in clean.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.load_state_dict(next(norms).state_dict())
    assert next(norms, None) is None
    return clean


@pytest.mark.parametrize("model", MODELS)
def test_the_loss_is_its_formula(model: str) -> None:
    """Value, and gradients of the network and of what is beside it, against a direct computation in float64."""
    own, batch = objective(invariance=7), random_batch()
    learner = learner_of(own, small(f"model={model}").model)
    tables = own.tables(10, 12)
    tables["accuracy"].fill_(0.3)
    attacked = (batch.images + 0.05).clamp(0, 1)
    slow, beside = copy.deepcopy(learner.model).double(), copy.deepcopy(learner.auxiliary).double()
    clean = with_clean_norms(learner.model, learner.auxiliary).double()
    found = own.loss(context(tables=tables), learner, batch, attacked)

    rows = torch.arange(12)
    features = slow.features(attacked.double())
    robust = -slow.linear(features).log_softmax(1)[rows, batch.labels].mean()
    natural_features = clean.features(batch.images.double())
    natural = -clean.linear(natural_features).log_softmax(1)[rows, batch.labels].mean()
    one, batch_norm, _, two = beside.predictor
    hidden = features @ one.weight.T
    normal = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + batch_norm.eps).sqrt()
    said = (normal * batch_norm.weight + batch_norm.bias).clamp_min(0) @ two.weight.T + two.bias
    aim = natural_features.detach()
    cosine = (said * aim).sum(1) / (said.norm(dim=1) * aim.norm(dim=1).clamp_min(1e-8))
    value = 0.3 * robust + 0.7 * natural + 7 * (1 - cosine).mean()
    torch.testing.assert_close(found.value.double(), value, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.logits.double(), slow.linear(features), rtol=1e-3, atol=1e-4)

    found.value.backward()
    value.backward()
    norms = {name for name, layer in learner.model.named_modules() if isinstance(layer, nn.BatchNorm2d)}
    for (name, parameter), (_, expected), (_, other) in zip(
        learner.model.named_parameters(), slow.named_parameters(), clean.named_parameters(), strict=True
    ):
        shared = name.rpartition(".")[0] not in norms
        true = expected.grad
        if shared and true is not None and other.grad is not None:
            true = true + other.grad
        assert_gradient(parameter.grad, true)
    assert learner.auxiliary is not None
    for (_, parameter), (_, expected) in zip(
        learner.auxiliary.predictor.named_parameters(), beside.predictor.named_parameters(), strict=True
    ):
        assert_gradient(parameter.grad, expected.grad)
    trained = [layer for layer in clean.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm, layer in zip(learner.auxiliary.norms, trained, strict=True):
        assert_gradient(norm.weight.grad, layer.weight.grad)
        torch.testing.assert_close(norm.running_mean.double(), layer.running_mean, rtol=1e-4, atol=1e-5)


def assert_gradient(found: Tensor | None, true: Tensor | None) -> None:
    """Both are there, and nearly the same."""
    assert found is not None and true is not None
    torch.testing.assert_close(found.double(), true, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_weights_follow_the_clean_accuracy_of_the_epoch_before(model: str) -> None:
    """By the BatchNorms for clean images, in eval mode; none in the first epoch; the attack is PGD-AT's."""
    own, batch = objective(), random_batch()
    learner = learner_of(own, small(f"model={model}").model)
    clean = with_clean_norms(learner.model, learner.auxiliary).eval()
    labels = clean(batch.images).argmax(1)
    batch = Batch(batch.images, torch.where(torch.arange(12) < 9, labels, batch.labels), batch.ids)
    right = (labels == batch.labels).float().mean()
    tables = own.tables(10, 12)
    for epoch, known in ((0, 0.0), (0, 0.0), (1, float(right)), (2, float(right))):
        attacked = own.attacked(context(tables=tables, epoch=epoch), learner, batch)
        assert tables["accuracy"].item() == pytest.approx(known)
    plain = small(*ALONE, f"experts.robust.objective={json.dumps({'name': 'adversarial', **THREAT})}")
    adversarial: Any = plain.experts["robust"].objective
    expected = adversarial.attacked(context(), learner, batch)
    torch.testing.assert_close(attacked, expected)


def test_what_is_beside_is_trained_and_stored_but_not_deployed(few: Dataset, tmp_path: Path) -> None:
    """It starts by the seed, moves, and is the same again after a kill."""
    own = config(
        "training.epochs=2",
        "training.batch_size=32",
        "model={name: preact_resnet18, width: 2}",
        "evaluation.selection_attack.steps=1",
    )
    whole = finish(own, few, tmp_path / "whole")[1]
    assert set(whole.learners["robust"]) == set(build(own.model, few.shape).state_dict())
    abandon(own, few, tmp_path / "left", after=2)
    assert digests(finish(own, few, tmp_path / "left")[1]) == digests(whole)

    training = Trainer(own, few, Store(tmp_path / "whole"))
    with make_runner(training, lambda _: None) as runner:
        last = ending(training, runner).last["robust"]
    stored = training.states.load(last)[0].tables
    ours = own.experts["robust"]
    began = initial_tables(ours, own.model, few.shape, images=len(few.train), seed=own.seed)
    assert stored.keys() == began.keys()
    moved = [name for name in stored if "predictor" in name and "weight" in name]
    assert moved and all(not torch.equal(stored[name], began[name]) for name in moved)
    again = initial_tables(ours, own.model, few.shape, images=len(few.train), seed=own.seed)
    assert all(torch.equal(began[name], again[name]) for name in began)


def test_a_batch_of_one_image_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    """As the predictor's BatchNorm sees one number of each."""
    with pytest.raises(BadInput, match=r"what ar_at of experts\.robust trains beside the network has a BatchNorm"):
        finish(config("training.batch_size=1"), dataset, tmp_path)
