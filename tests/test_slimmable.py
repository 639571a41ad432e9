"""Slimmable networks: what a width computes, which weights it has, and how it is trained."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from generalist import engine
from generalist.config import Config, canonical, load
from generalist.config.section import part_names
from generalist.data import Dataset
from generalist.errors import BadInput
from generalist.evaluation import as_evaluated, learner_names, point_of
from generalist.expert_state import ExpertSpec, initial_state
from generalist.experts import Expert
from generalist.models import Classifier, add_gradients, at_width, build, initialise, weights_at_width, widths_of
from generalist.records import Point
from generalist.tensors import Batch
from generalist.training.config_checks import check_widths
from tests.model_factory import GREY, TINY, made, numbers, options, settle
from tests.training_factory import SMALL, abandon, digests, finish, small

MIXED = torch.tensor([0, 0, 0.1, 0.2, 0.3, 0.4, 1, 1, 0.05, 0.7, 0, 1])
LAMBDA = {"encoding": "random", "size": 8}
NETWORKS = pytest.mark.parametrize("name", part_names("models"))


def sizes(name: str, condition: Any) -> dict[str, Any]:
    """Return options of an architecture with four channels in its first layer."""
    return {**TINY[name], "width": 4, **({"condition": condition} if condition else {})}


def slimmable(name: str, condition: Any = None) -> Classifier:
    """Return a network of three widths in float64, whose BatchNorms all differ."""
    model = made(name, **sizes(name, condition), widths=[0.25, 0.5, 1])
    settle(model)
    return model.double()


def given(condition: Any) -> tuple[Tensor, ...]:
    """Return what a network gets beside images."""
    return (MIXED.double(),) if condition else ()


def alone(name: str, condition: Any, share: float) -> Classifier:
    """Return the narrow network by itself, with no weights that mean something."""
    return build(options(name, **{**sizes(name, condition), "width": round(4 * share)}), GREY).double()


def sliced(model: Classifier, narrow: Classifier, share: float) -> dict[str, Tensor]:
    """Return the weights that the narrow network should have: first parts of the wide one's, and its own BatchNorms."""
    norms = model.narrow_norms
    assert norms is not None
    own = dict(norms.get_submodule(f"norms.{[0.25, 0.5].index(share)}").named_children())
    tensors = {}
    parameters = {**dict(model.named_buffers()), **dict(model.named_parameters())}
    for key, form in narrow.state_dict().items():
        path, _, leaf = key.rpartition(".")
        if isinstance(narrow.get_submodule(path), nn.BatchNorm2d):
            tensors[key] = getattr(own[path.replace(".", "/")], leaf)
        else:
            tensor = parameters[key]
            for axis, size in enumerate(form.shape):
                tensor = tensor.narrow(axis, 0, size)
            tensors[key] = tensor
    return tensors


@pytest.mark.parametrize(
    ("share", "training", "condition"),
    [(0.25, True, LAMBDA), (0.5, True, None), (0.5, False, LAMBDA)],
    ids=["lambda", "plain", "lambda in eval mode"],
)
@NETWORKS
def test_a_width_is_the_narrow_network_with_the_slices(name: str, condition: Any, share: float, training: bool) -> None:
    """The same outputs, statistics of BatchNorm, and gradients of the wide weights, in float64."""
    model, images = slimmable(name, condition).train(training), numbers(len(MIXED)).double()
    narrow = alone(name, condition, share).train(training)
    again = copy.deepcopy(model)
    weights = sliced(again, narrow, share)
    labels = torch.arange(len(MIXED)) % 10
    expected = functional_call(narrow, weights, (images, *given(condition)))
    F.cross_entropy(expected, labels).backward()
    at = at_width(model, share)
    found = at(images, *given(condition))
    torch.testing.assert_close(found, expected)
    F.cross_entropy(found, labels).backward()
    add_gradients(model, at, share)
    for own, other in zip(model.parameters(), again.parameters(), strict=True):
        zero = torch.zeros_like(own)
        torch.testing.assert_close(zero if own.grad is None else own.grad, zero if other.grad is None else other.grad)
    for own_buffer, other_buffer in zip(model.buffers(), again.buffers(), strict=True):
        torch.testing.assert_close(own_buffer, other_buffer)


@pytest.mark.parametrize("condition", [None, LAMBDA], ids=["plain", "lambda"])
@NETWORKS
def test_the_whole_width_is_the_network_without_widths(name: str, condition: Any) -> None:
    """The same initial weights by the same names, and the same outputs to the bit; each width has BatchNorms more."""
    plain = made(name, **sizes(name, condition))
    model = made(name, **sizes(name, condition), widths=[0.25, 0.5, 1])
    assert widths_of(model) == (1.0, 0.5, 0.25) and widths_of(plain) == (1.0,)
    own = {key: tensor for key, tensor in model.state_dict().items() if not key.startswith("narrow_norms.")}
    assert own.keys() == plain.state_dict().keys()
    assert all(torch.equal(tensor, own[key]) for key, tensor in plain.state_dict().items())
    assert at_width(model, 1.0) is model
    norms = sum(isinstance(part, nn.BatchNorm2d) for part in plain.modules())
    assert sum(isinstance(part, nn.BatchNorm2d) for part in model.modules()) == 3 * norms
    images, more = numbers(len(MIXED)), tuple(own.float() for own in given(condition))
    assert torch.equal(model.eval()(images, *more), plain.eval()(images, *more))


@NETWORKS
def test_a_width_follows_each_step_of_an_optimizer(name: str) -> None:
    """Weights lie in the wide ones', so nothing is copied; statistics of its own stay apart from the others'."""
    model = slimmable(name).train()
    narrow, images = at_width(model, 0.5), numbers(4).double()
    before = {key: buffer.clone() for key, buffer in model.named_buffers()}
    narrow(images).square().sum().backward()
    add_gradients(model, narrow, 0.5)
    moved = {key for key, buffer in model.named_buffers() if not torch.equal(buffer, before[key])}
    assert all(key.startswith("narrow_norms.norms.1.") for key in moved)
    assert bool(moved) == any(isinstance(part, nn.BatchNorm2d) for part in model.modules())
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    fresh = at_width(model, 0.5)
    for key, tensor in narrow.state_dict().items():
        assert torch.equal(tensor, fresh.state_dict()[key])
    assert torch.equal(narrow.eval()(images), fresh.eval()(images))
    views = weights_at_width(model, model.state_dict(), 0.5)
    assert all(torch.equal(tensor, views[key]) for key, tensor in narrow.state_dict().items())


# --- training -----------------------------------------------------------------------------------------

OATS = (
    "experts.oat.objective={name: oat, threat: {norm: linf, eps: 0.1}, attack: {steps: 2}}",
    "model.condition={size: 8}",
    "evaluation.conditions=[1, 0.05]",
)


def small_oats(*overrides: str) -> Config:
    """Return a small training of one slimmable network."""
    base = [own for own in SMALL if own.partition(".")[0] not in {"mixing", "experts"}]
    return load(preset="digits-oats", overrides=(*base, *OATS, *overrides))


def expert(config: Config) -> Expert:
    """Return its expert before the first step."""
    spec = ExpertSpec(config.experts["oat"], None, config.seed, 12, 10, config.engine)
    state = initial_state(engine.initial_weights(config.model, GREY, config.seed), spec)
    return Expert(spec, state, config.model, GREY, torch.device("cpu"))


def batch_of(count: int) -> Batch:
    """Return random images."""
    return Batch(numbers(count), torch.arange(count) % 10, torch.arange(count))


def test_a_step_adds_up_the_gradients_of_all_widths() -> None:
    """Each width attacks its own network at the same conditions; alone, each gives its part of the sum."""
    own, batch = expert(small_oats()), batch_of(12)
    own.differentiate(batch, 1, 0)
    total = {key: parameter.grad for key, parameter in own.learner.model.named_parameters()}
    expected = {key: torch.zeros_like(parameter) for key, parameter in own.learner.model.named_parameters()}
    images = []
    for share in (1.0, 0.75, 0.5):
        other = expert(small_oats())
        learner = other.learner if share == 1 else other._narrower[share]
        attacked = other._attacked(learner, batch, 1, 0)
        images.append(attacked.images)
        assert attacked.rows.condition is not None
        assert torch.equal(attacked.rows.condition, own.attack(batch, 1, 0).rows.condition)  # type: ignore[arg-type]
        other._backward(learner, attacked, batch)
        add_gradients(other.learner.model, learner.model, share)
        for key, parameter in other.learner.model.named_parameters():
            expected[key] += 0 if parameter.grad is None else parameter.grad
    assert not torch.equal(images[0], images[1]) and not torch.equal(images[1], images[2])
    for key, gradient in expected.items():
        torch.testing.assert_close(total[key], gradient, rtol=1e-4, atol=1e-6)


def test_a_frozen_width_follows_its_network() -> None:
    """What attacks see of a width is that width in eval mode, after each step."""
    own, batch = expert(small_oats()), batch_of(12)
    for step in range(2):
        own.step(batch, step + 1, step)
    for share, learner in own._narrower.items():
        network = copy.deepcopy(at_width(own.learner.model, share)).eval()
        condition = torch.linspace(0, 1, 12)
        assert torch.equal(learner.frozen.at(condition)(batch.images), network(batch.images, condition))


@pytest.mark.long
def test_a_training_of_widths_resumes_to_the_same_bits_and_is_measured_at_each(dataset: Dataset, tmp_path: Any) -> None:
    """Every width learns, and has a learner of the evaluation at each condition."""
    fast = ("experts.oat.optimizer.lr=0.1", "training.epochs=2")
    config = small_oats("training.batch_size=32", "model.width=8", *fast)
    outcome = finish(config, dataset, tmp_path / "store")[1]
    abandon(config, dataset, tmp_path / "again", after=2)
    assert digests(finish(config, dataset, tmp_path / "again")[1]) == digests(outcome)
    names = learner_names(["oat"], config.evaluation)
    assert names == [
        "oat",
        *(f"oat at lambda 1 and width {width}" for width in ("0.75", "0.5")),
        *(f"oat at lambda 0.05 and width {width}" for width in ("1", "0.75", "0.5")),
    ]
    assert point_of(names[-1], config.evaluation) == Point(0.05, 0.5)
    model = engine.model_with(config.model, dataset.shape, outcome.learners["oat"], on=torch.device("cpu"))
    images = torch.tensor(dataset.test.images[:100]).float() / 255
    labels = torch.tensor(dataset.test.labels[:100])
    for name in names:
        share = point_of(name, config.evaluation).width
        assert share is not None
        said = as_evaluated(model, config.evaluation, name)(images)
        condition = torch.full((100,), point_of(name, config.evaluation).condition)  # type: ignore[arg-type]
        assert torch.equal(said, at_width(model, share)(images, condition))
        assert (said.argmax(1) == labels).float().mean() > 0.25, name


def test_transfers_are_views_through_all_other_points() -> None:
    """An attack may look through the decision at each other lambda and width."""
    config = small_oats("evaluation.transfers=true", "evaluation.widths=[1, 0.5]")
    model = build(config.model, GREY)
    initialise(model, torch.Generator().manual_seed(0))
    views = as_evaluated(model.eval(), config.evaluation).views()
    assert list(views) == ["decision", "lambda 1 and width 0.5", "lambda 0.05 and width 1", "lambda 0.05 and width 0.5"]
    images = numbers(4)
    expected = at_width(model, 0.5)(images, torch.full((4,), 0.05))
    assert torch.equal(views["lambda 0.05 and width 0.5"](images), expected)


def test_what_an_objective_trains_beside_its_network_has_one_width(dataset: Dataset) -> None:
    """So it is refused with widths, before any work starts."""
    base = [own for own in SMALL if own.partition(".")[0] not in {"mixing", "experts"}]
    config = load(preset="digits-ar-at", overrides=(*base, "model.widths=[0.5, 1]", "evaluation.widths=[1]"))
    with pytest.raises(BadInput, match=r"experts.robust.objective is ar_at, which trains a module beside the network"):
        check_widths(config, dataset)


# --- configuration ------------------------------------------------------------------------------------


def test_a_network_of_one_width_has_the_options_that_it_had() -> None:
    """Neither keys nor files tell of widths."""
    assert "widths" not in canonical(small().model) and "widths" not in canonical(small().evaluation)
    assert canonical(small_oats().model)["widths"] == [0.5, 0.75, 1]


@pytest.mark.parametrize(
    ("preset", "overrides", "sentence"),
    [
        ("digits-oats", ["model.widths=[0, 1]"], "model.widths.0 is 0, but it should be greater than 0"),
        ("digits-oats", ["model.widths=[0.5, 1.5]"], "model.widths.1 is 1.5, but it should be less than or equal to 1"),
        ("digits-oats", ["model.widths=[0.5, 0.75]"], "model.widths: widths must rise to 1, the whole network"),
        ("digits-oats", ["model.widths=[0.3, 1]"], "'widths' has 0.3, but that share of 'width' 32 is no whole number"),
        (
            "digits-oats",
            ["evaluation.widths=[1, 0.3]"],
            "evaluation.widths has 0.3, which is not trained: model.widths",
        ),
        ("digits-oats", ["evaluation.widths=[]"], "evaluation.widths is missing: give those of model.widths"),
        ("digits-oats", ["evaluation.widths=[1, 1]"], "evaluation.widths names a value twice"),
        ("digits", ["evaluation.widths=[0.5]"], "which is not trained: model.widths is empty"),
        ("digits", ["evaluation.transfers=true"], "evaluation.transfers is without effect"),
        (
            "digits-mat",
            ["model.widths=[0.5, 1]", "evaluation.widths=[1]"],
            "model.widths can't be had where experts learn from each other",
        ),
    ],
)
def test_wrong_widths_are_told_in_one_sentence(preset: str, overrides: list[str], sentence: str) -> None:
    """Before any work starts."""
    with pytest.raises(BadInput) as caught:
        load(preset=preset, overrides=overrides)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)
