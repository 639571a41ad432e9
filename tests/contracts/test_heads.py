"""A head that is defined here alone: training, evaluation and export take it as it is."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from generalist import engine
from generalist.attacks import VERSIONS, fixed_batches, misclassified, model_checks
from generalist.config import ConditionOptions, EngineOptions, HeadOptions
from generalist.config.section import part_names, plugin
from generalist.data import Dataset, Split
from generalist.evaluation import Verdicts, evaluate
from generalist.export import check_parity, export
from generalist.export.runtime import Runtime
from generalist.models import Classifier, Head, LossView, Role, build, initialise
from generalist.models.small_cnn import SmallCnn
from generalist.objectives import Context, Learner, Peer
from generalist.objectives.two_hot import TwoHot
from generalist.records import Measured
from generalist.tensors import Batch, to_unit
from tests.objective_factory import every_option, objective
from tests.strategies import generator
from tests.training_factory import finish, first, small

N = 24
HEADS = part_names("models.heads")


class Doubled(Head):
    """A dummy class beside each class: attacked images are trained towards it, and the larger of both decides."""

    @property
    def outputs(self) -> int:
        return 2 * self.classes

    def decision(self, raw: Tensor) -> Tensor:
        return torch.maximum(*raw.chunk(2, dim=1))

    def views(self) -> dict[str, Callable[[Tensor], Tensor]]:
        return {**super().views(), "smooth": lambda raw: torch.logaddexp(*raw.chunk(2, dim=1))}

    def nonadaptive(self) -> dict[str, Callable[[Tensor], Tensor]]:
        return {"raw": lambda raw: raw}

    def targets(self, labels: Tensor, role: Role) -> Tensor:
        shares = torch.tensor({"natural": [0.75, 0.25], "adversarial": [0.0, 1.0]}[role], device=labels.device)
        return torch.kron(shares, F.one_hot(labels, self.classes).float())


class DoubledOptions(HeadOptions):
    """What a configuration would name."""

    name: Literal["doubled"] = "doubled"

    def __call__(self, classes: int) -> Head:
        return Doubled(classes)


class Trained(NamedTuple):
    """What came of a training, and of its evaluation on the first test images."""

    model: Classifier
    images: Split
    verdicts: Verdicts


@pytest.fixture(scope="module")
def trained(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The natural expert of a small training."""
    alone = ("mixing=null", "deploy=expert:natural", "training.batch_size=16", "training.epochs=3")
    config = small(*alone, "evaluation.extra_attack=true", "evaluation.threats.0.eps=0.06")
    model_options = config.model.model_copy(update={"head": DoubledOptions(), "width": 8})
    objective = TwoHot.model_validate({"name": "two_hot", "base": {"name": "natural"}})
    natural = config.experts["natural"].model_copy(update={"objective": objective})
    config = config.model_copy(update={"model": model_options, "experts": {"natural": natural}})
    weights = finish(config, dataset, tmp_path_factory.mktemp("store"))[1].learners["natural"]
    model, split = (
        engine.model_with(config.model, dataset.shape, weights, on=torch.device("cpu")),
        first(dataset.test, N),
    )
    options, names = config.evaluation, dataset.class_names
    with pytest.MonkeyPatch.context() as patch:  # a short cascade, on no more images than there are
        patch.setattr(fixed_batches, "_TILE", N)
        patch.setattr(model_checks, "_HUGE_STEPS", 2)
        patch.setitem(VERSIONS, "quick", replace(VERSIONS["quick"], targets=2, steps=10, fab_steps=5))
        verdicts = evaluate(model, split, options=options, class_names=names, name="it", epoch=5, digest="d")
    return Trained(model, split, verdicts)


@pytest.mark.parametrize("options", [DoubledOptions(), *(plugin("models.heads", {"name": n}) for n in HEADS)], ids=repr)
def test_a_head_keeps_the_contract(options: HeadOptions) -> None:
    """Views begin with the decision and have gradients; losses take targets of both roles, and aim where asked to."""
    head, labels = options(3), torch.tensor([2, 0])
    raw = torch.randn(2, head.outputs, generator=generator(1)).requires_grad_()
    assert head.decision(raw).shape == (2, 3)
    assert next(iter(head.views())) == "decision" and torch.equal(head.views()["decision"](raw), head.decision(raw))
    for view in (*head.views().values(), *head.nonadaptive().values()):
        outputs = view(raw)
        assert outputs.shape[0] == 2 and outputs.shape[1] >= 3
        losses = [F.cross_entropy(outputs, labels, reduction="none")]
        if isinstance(view, LossView):
            losses = [view.loss(outputs, labels), view.loss(outputs, labels, (labels + 1) % 3)]
        for loss in losses:
            (gradient,) = torch.autograd.grad(loss.sum(), raw, retain_graph=True)
            assert loss.shape == (2,) and gradient.isfinite().all() and gradient.any(dim=1).all()
    for role in ("natural", "adversarial"):
        assert F.cross_entropy(raw, head.targets(labels, role)).isfinite()


@pytest.mark.parametrize("name", part_names("objectives"))
def test_objectives_train_towards_its_targets(trained: Trained, name: str) -> None:
    """Steps down its loss reach every weight; the logits for the training accuracy are the decision's."""
    own = objective(**every_option(name))
    model = copy.deepcopy(trained.model).train().requires_grad_()
    if "condition" in own.needs:
        options = SmallCnn(name="small_cnn", width=8, head=DoubledOptions(), condition=ConditionOptions())
        model = build(options, model.shape).train()
        initialise(model, generator(1))
    images = to_unit(torch.tensor(trained.images.images))
    batch = Batch(images, torch.tensor(trained.images.labels), torch.arange(N), images.flip(3), images.flip(2))
    other = {name: 1.1 * value for name, value in model.state_dict().items()}
    frozen, teacher = (engine.FrozenNetwork(model, EngineOptions(), weights) for weights in (None, other))
    learner, context = (
        Learner(model, frozen, teacher, teacher, (Peer(teacher, batch.images),), own.auxiliary(model)),
        Context(generator(0), tables=own.tables(10, N)),
    )
    batch = replace(batch, condition=own.conditions(context, learner, batch))
    loss = own.loss(context, learner, batch, own.attacked(context, learner, batch))
    assert loss.logits.shape == (N, model.shape.classes)
    loss.value.backward()
    without_labels = {model.linear.weight, model.linear.bias} if "start_from" in own.needs else set()
    reached = set(model.parameters()) - without_labels
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in reached)


def test_a_training_follows_the_targets(trained: Trained) -> None:
    """Of natural images three quarters go to the class, not to its dummy, and the decision is right far above chance."""
    clean = to_unit(torch.tensor(trained.images.images))
    labels = torch.tensor(trained.images.labels)
    with torch.no_grad():
        own, dummy = trained.model(clean).gather(1, torch.stack((labels, labels + 10), dim=1)).T
    assert trained.verdicts.evaluation.natural.correct > 0.3 * N
    assert (own - dummy).mean() > 0


def test_the_evaluation_has_columns_for_every_view(trained: Trained) -> None:
    """By the decision in each; the worst is of images that stand in all; ends are where the decision is fooled."""
    arrays, (threat,) = trained.verdicts.arrays, trained.verdicts.evaluation.threats
    whole, raw = ("pgd", "cascade", "strongest"), "raw (non-adaptive)"
    assert list(threat.columns) == [*whole, "smooth/pgd", *(f"{raw}/{attack}" for attack in whole)]
    held = {name: arrays[f"it/{threat.threat}/{name}"] for name in threat.columns}
    assert all(threat.columns[name].correct == own.sum() for name, own in held.items())
    worst = np.logical_and.reduce(list(held.values()))
    assert threat.worst.correct == worst.sum() == sum(own.robust.correct for own in measured_classes(trained))
    labels = torch.tensor(trained.images.labels)
    with torch.no_grad():
        said = trained.model.decision(trained.model(torch.tensor(trained.verdicts.adversarial)))
    assert torch.equal(misclassified(said, labels)[~worst], torch.ones(int((~worst).sum()), dtype=torch.bool))
    # An attack that stops at the first dummy class says less than one that knows the decision.
    assert held["cascade"].sum() <= min(held[f"{raw}/cascade"].sum(), held[f"{raw}/pgd"].sum()) < N
    assert held["strongest"].sum() <= held["cascade"].sum()
    assert held[f"{raw}/strongest"].sum() <= held[f"{raw}/cascade"].sum()


def measured_classes(trained: Trained) -> list[Measured]:
    """Of each class, under the first threat."""
    return list(trained.verdicts.evaluation.per_class.values())


@pytest.mark.long
def test_the_exported_file_is_the_decision(trained: Trained, tmp_path: Path) -> None:
    """One logit a class; torch and ONNX Runtime agree on clean and on attacked images."""
    export(trained.model, tmp_path / "model.onnx", metadata={}, opset=18)
    images = np.asarray(trained.images.images)
    found = check_parity(trained.model, tmp_path / "model.onnx", images, trained.verdicts.adversarial, tolerance=1e-4)
    assert found.passed and found.n == 2 * N, found
    assert Runtime(tmp_path / "model.onnx").classes == trained.model.shape.classes
