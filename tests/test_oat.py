"""Once-for-all adversarial training: conditions, conditional layers, the objective, each against its formula."""

import copy
import dataclasses
import functools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from generalist import engine
from generalist.attacks import pgd
from generalist.config import ConditionOptions, Config, EngineOptions, canonical, load
from generalist.config.section import part_names
from generalist.data import Dataset
from generalist.engine.cuda_graphs import GraphCache
from generalist.errors import BadInput
from generalist.evaluation import AtPoint
from generalist.models import Classifier, build
from generalist.models.layers.conditioning import FiLM, encoding_of
from generalist.objectives import Context, Learner, Objective
from generalist.records import Point
from generalist.tensors import Batch
from generalist.threats import Threat
from generalist.training.config_checks import check_conditions, check_single_images
from tests.model_factory import GREY, TINY, made, numbers, options, settle
from tests.test_cuda_graphs import rerun
from tests.training_factory import SMALL, small

KINDS = ("random", "dct", "one_hot", "raw")
CHOICES = (0.0, 0.1, 0.2, 0.3, 0.4, 1.0)
MIXED = torch.tensor([0, 0, 0.1, 0.2, 0.3, 0.4, 1, 1, 0.05, 0.7, 0, 1])
OAT = (
    "experts.oat.objective={name: oat, threat: {norm: linf, eps: 0.1}, attack: {steps: 2}}",
    "model.condition={size: 8}",
    "evaluation.conditions=[1, 0, 0.05]",
)


def small_oat(*overrides: str) -> Config:
    """Return a small training of one conditional network."""
    base = [own for own in SMALL if own.partition(".")[0] not in {"mixing", "experts"}]
    return load(preset="digits-oat", overrides=(*base, *OAT, *overrides))


def conditional(name: str = "small_cnn", encoding: str = "random", **own: Any) -> Classifier:
    """Return a conditional network with initial weights and statistics that are far from the identity."""
    model = made(name, **(own or TINY[name]), condition={"encoding": encoding, "size": 8})
    settle(model)
    return model


# --- encodings ----------------------------------------------------------------------------------------


def codes(encoding: str, condition: list[float], size: int = 8) -> Tensor:
    """Return what layers get of these conditions."""
    made_of = encoding_of(ConditionOptions(encoding=encoding, size=size))  # type: ignore[arg-type]  # one of KINDS
    assert made_of is not None
    made_of.initialise(torch.Generator().manual_seed(0))
    result: Tensor = made_of(torch.tensor(condition)).codes
    return result


def test_rows_are_those_of_their_matrices() -> None:
    """Random ones are orthonormal; those of the cosine transform are scipy's, not normalised; the rest is the identity."""
    scipy_fft = pytest.importorskip("scipy.fft")
    random = codes("random", list(CHOICES))
    torch.testing.assert_close(random @ random.T, torch.eye(6))
    assert not torch.allclose(random.abs(), torch.eye(6, 8))
    expected = torch.tensor(scipy_fft.dct(torch.eye(8, dtype=torch.float64).numpy())[:6]).float()
    torch.testing.assert_close(codes("dct", list(CHOICES)), expected)
    torch.testing.assert_close(codes("one_hot", list(CHOICES)), torch.eye(6, 8))
    torch.testing.assert_close(codes("raw", list(CHOICES)), torch.tensor(CHOICES)[:, None])


@given(place=st.integers(0, 4), share=st.floats(0, 1))
def test_between_choices_rows_are_interpolated(place: int, share: float) -> None:
    """On the line between the two neighbours' rows; at a choice it is that row to the bit."""
    rows = codes("random", list(CHOICES))
    low, high = CHOICES[place : place + 2]
    between = codes("random", [low + share * (high - low)])[0]
    torch.testing.assert_close(between, (1 - share) * rows[place] + share * rows[place + 1], atol=1e-5, rtol=0)


# --- layers -------------------------------------------------------------------------------------------


def slow_film(film: FiLM, hidden: Tensor, code: Tensor) -> Tensor:
    """gamma h + beta in float64, both through LeakyReLU of slope .01."""

    def leaky(values: Tensor) -> Tensor:
        return torch.where(values > 0, values, 0.01 * values)

    first, last = film.hidden, film.outputs
    inner = leaky(first.weight.double() @ code.double() + first.bias.double())
    both = leaky(last.weight.double() @ inner + last.bias.double())
    gamma, beta = both[: len(hidden)], both[len(hidden) :]
    return gamma[:, None, None] * hidden + beta[:, None, None]


def slow_logits(model: Any, image: Tensor, condition: float) -> Tensor:
    """One image through the small conditional network in eval mode, layer by layer in float64."""
    code = model.encoding(torch.tensor([condition])).codes[0]
    hidden = F.pixel_unshuffle((image[None].double() - model.mean.double()) / model.std.double(), 2)
    for conv, norm in ((model.conv1, model.norm1), (model.conv2, model.norm2)):
        hidden = F.conv2d(hidden, conv.weight.double(), conv.bias.double(), padding=1)
        own = norm.natural if condition == 0 else norm.adversarial
        statistics = [
            value.double()[:, None, None] for value in (own.running_mean, own.running_var, own.weight, own.bias)
        ]
        mean, variance, weight, bias = statistics
        normalised = (hidden[0] - mean) / (variance + own.eps).sqrt() * weight + bias
        hidden = slow_film(norm.film, normalised, code)[None].relu()
    result: Tensor = model.linear.weight.double() @ hidden.flatten() + model.linear.bias.double()
    return result


def test_the_small_network_is_its_formula() -> None:
    """BatchNorm by whether lambda is 0, then FiLM by its code, after each convolution."""
    model = conditional(width=3).eval()
    images = numbers(len(MIXED))
    with torch.no_grad():
        expected = [
            slow_logits(model, image, condition) for image, condition in zip(images, MIXED.tolist(), strict=True)
        ]
        torch.testing.assert_close(model(images, MIXED).double(), torch.stack(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "encoding"),
    [*((name, "random") for name in part_names("models")), *(("small_cnn", own) for own in KINDS[1:])],
)
def test_every_architecture_takes_conditions(name: str, encoding: str) -> None:
    """Each image on its own in eval mode; gradients reach every weight; without a condition all is as it was."""
    model = conditional(name, encoding)
    images = numbers(len(MIXED))
    model.train()(images, MIXED).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.eval()
    with torch.no_grad():
        alone = [model(images[i : i + 1], MIXED[i : i + 1]) for i in range(len(images))]
        torch.testing.assert_close(model(images, MIXED), torch.cat(alone), rtol=1e-4, atol=1e-5)
    with pytest.raises(TypeError, match="takes a condition"):
        model(images)
    with pytest.raises(TypeError, match="takes a condition"):
        made(name)(images, MIXED)
    assert not {own for own in made(name).state_dict() if "encoding" in own or "film" in own or "natural" in own}


@pytest.mark.parametrize("name", ["resnet18", "wide_resnet"])
def test_shortcuts_and_the_last_batchnorm_have_no_film(name: str) -> None:
    """Both are dual; FiLM follows the others, as in the published code."""
    parts = dict(conditional(name).named_modules())
    dual = {path for path, part in parts.items() if type(part).__name__ == "DualNorm"}
    filmed = {path.removesuffix(".film") for path, part in parts.items() if isinstance(part, FiLM)}
    assert dual - filmed == ({"bn"} if name == "wide_resnet" else {path for path in dual if "shortcut" in path})
    assert len(filmed) >= 6


def test_each_batchnorm_follows_its_own_images() -> None:
    """In training, statistics for lambda = 0 are those of its images alone, and so are the others."""
    model: Any = conditional(width=3).train()
    images = numbers(len(MIXED))
    blocks = F.pixel_unshuffle((images - model.mean) / model.std, 2)
    hidden = model.conv1(blocks)
    before = copy.deepcopy(model.norm1)
    model(images, MIXED)
    for own, was, rows in (
        (model.norm1.natural, before.natural, MIXED == 0),
        (model.norm1.adversarial, before.adversarial, MIXED > 0),
    ):
        expected = 0.9 * was.running_mean + 0.1 * hidden[rows].mean(dim=(0, 2, 3))
        torch.testing.assert_close(own.running_mean, expected)


# --- the objective ------------------------------------------------------------------------------------


@functools.cache
def oat(**own: Any) -> Objective:
    """Return the objective of a small training."""
    objective = (
        small_oat(*(f"experts.oat.objective.{key}={value}" for key, value in own.items())).experts["oat"].objective
    )
    assert isinstance(objective, Objective)
    return objective


def step(count: int, model: Classifier | None = None, seed: int = 0) -> tuple[Context, Learner, Batch]:
    """Return a step on random images, with their conditions."""
    model = model or conditional(width=3)
    learner = Learner(model.train(), engine.FrozenNetwork(model, EngineOptions()))
    batch = Batch(numbers(count), torch.arange(count) % 10, torch.arange(count))
    context = Context(torch.Generator().manual_seed(seed))
    return context, learner, dataclasses.replace(batch, condition=oat().conditions(context, learner, batch))


@given(count=st.integers(2, 300), seed=st.integers(0, 9))
def test_the_first_sixth_of_a_batch_is_natural(count: int, seed: int) -> None:
    """Rounded up, whatever its size; all others are one of the other choices."""
    model = build(options("small_cnn", width=2, condition={"size": 8}), GREY)
    condition = step(count, model, seed)[2].condition
    assert condition is not None
    first = math.ceil(count / 6)
    assert condition.shape == (count,) and (condition[:first] == 0).all()
    assert set(condition[first:].tolist()) <= set(torch.tensor(CHOICES[1:]).tolist())


def test_the_others_are_drawn_alike() -> None:
    """Of 25,000 each choice has a fifth, within four standard deviations."""
    model = build(options("small_cnn", width=2, condition={"size": 8}), GREY)
    condition = step(30_000, model)[2].condition
    assert condition is not None
    for choice in CHOICES[1:]:
        share = (condition[5000:] == torch.tensor(choice)).float().mean()
        assert abs(share - 0.2) < 4 * math.sqrt(0.2 * 0.8 / 25_000)


def test_the_loss_is_its_formula() -> None:
    """mean (1 - l) CE(x; l) + l CE(x'; l), image by image in float64; its gradients are those of the slow one."""
    context, learner, batch = step(12)
    model: Any = learner.model.eval()
    own = oat()
    attacked = own.attacked(context, learner, batch)
    assert batch.condition is not None
    slow = copy.deepcopy(model).double()
    total = torch.zeros((), dtype=torch.float64)
    for i, condition in enumerate(batch.condition.tolist()):
        clean, moved = (slow_logits(slow, images[i], condition).log_softmax(0) for images in (batch.images, attacked))
        label = int(batch.labels[i])
        total = total - (1 - condition) * clean[label] - condition * moved[label]
    loss = own.loss(context, learner, batch, attacked)
    torch.testing.assert_close(loss.value.double(), total / 12, rtol=1e-4, atol=1e-5)
    loss.value.backward()
    (total / 12).backward()
    for name, parameter in model.named_parameters():
        other = dict(slow.named_parameters())[name].grad
        assert parameter.grad is not None and other is not None
        torch.testing.assert_close(parameter.grad.double(), other, rtol=1e-3, atol=1e-5)


def test_images_are_attacked_at_their_own_condition_by_the_other_batchnorm() -> None:
    """Those of lambda = 0 stay as they are; each other one is what an attack on its own condition alone gives."""
    context, learner, batch = step(12)
    attack = {"steps": 2, "random_start": False}
    own = oat(attack=str(attack).replace("'", "").replace("False", "false"))
    attacked = own.attacked(context, learner, batch)
    assert batch.condition is not None
    first = batch.condition == 0
    assert torch.equal(attacked[first], batch.images[first])
    for i in (~first).nonzero()[:, 0].tolist():
        network = AtPoint(copy.deepcopy(learner.model).eval(), Point(batch.condition[i].item()))
        one = slice(i, i + 1)
        alone = pgd(network, batch.images[one], batch.labels[one], Threat("linf", 0.1), **attack)
        torch.testing.assert_close(attacked[one], alone, atol=1e-5, rtol=0)


def test_accuracy_is_that_of_the_images_trained_on() -> None:
    """Attacked ones, and clean ones where lambda is 0."""
    context, learner, batch = step(12)
    model = learner.model.eval()
    attacked = oat().attacked(context, learner, batch)
    torch.testing.assert_close(oat().loss(context, learner, batch, attacked).logits, model(attacked, batch.condition))


def test_repeated_attacks_read_the_present_conditions() -> None:
    """A recorded attack is of no condition: each time it takes those of its batch."""
    model = conditional(width=3)
    plain, repeating = (engine.FrozenNetwork(model, EngineOptions()) for _ in range(2))
    repeating.graphs = GraphCache(rerun)
    labels = torch.arange(6)
    for seed in range(4):
        condition = torch.rand(6, generator=torch.Generator().manual_seed(seed))
        found, expected = (
            pgd(network.at(condition), numbers(6, seed=seed), labels, Threat("linf", 0.1), steps=2, random_start=False)
            for network in (repeating, plain)
        )
        assert torch.equal(found, expected)
    assert repeating.graphs.recordings == 1


# --- configuration ------------------------------------------------------------------------------------


def test_a_plain_network_s_options_are_what_they_were() -> None:
    """Neither keys nor files tell of conditions, so states that are stored stay in reach."""
    config = small()
    for section in (config.model, config.evaluation):
        assert not {"condition", "conditions", "transfers"} & canonical(section).keys()
    assert canonical(small_oat().model)["condition"]["choices"] == list(CHOICES)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["model.condition=null"], "model.condition is needed by the objective oat of experts.oat"),
        (
            ["experts.oat.objective={name: natural}"],
            "model.condition is without effect on the objective natural of experts.oat",
        ),
        (["evaluation.conditions=[]"], "evaluation.conditions is missing"),
        (["evaluation.conditions=[1, 1]"], "evaluation.conditions names a value twice"),
        (["evaluation.conditions=[1.5]"], "evaluation.conditions.0 is 1.5, but it should be less than or equal to 1"),
        (["model.condition.choices=[0.1, 1]"], "'choices' must rise from 0"),
        (["model.condition.choices=[0, 1, 0.5]"], "'choices' must rise from 0"),
        (["model.condition.size=3"], "'size' is 3, but 6 choices need as many rows"),
    ],
)
def test_what_conditions_can_not_be(overrides: list[str], sentence: str) -> None:
    """One sentence each, before anything is trained."""
    with pytest.raises(BadInput) as caught:
        small_oat(*overrides)
    assert sentence in str(caught.value)


def test_a_plain_model_has_no_conditions() -> None:
    """Neither its evaluation."""
    for override in ("evaluation.conditions=[1]", "evaluation.transfers=true"):
        with pytest.raises(BadInput, match="is without effect on a model that takes no condition"):
            small(override)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["training.batch_size=1"], "with model.condition a batch needs two"),
        (
            ["training.batch_size=4", "model={name: resnet18, width: 2, condition: {size: 8}}"],
            "BatchNorm of resnet18 can't train on single images",
        ),
    ],
)
def test_each_part_of_a_batch_has_enough_for_its_batchnorm(
    dataset: Dataset, overrides: list[str], sentence: str
) -> None:
    """A sixth of four images is one, of which the last stage sees one pixel; in a larger network it would see more."""
    with pytest.raises(BadInput) as caught:
        check_single_images(small_oat(*overrides), dataset)
    assert sentence in str(caught.value)
    check_single_images(small_oat("training.batch_size=4"), dataset)


def test_processes_can_not_share_conditional_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them might hold images of one kind alone."""
    monkeypatch.setattr(engine, "group", lambda: engine.ProcessGroup(0, 2))
    with pytest.raises(BadInput, match=r"model\.condition chooses a BatchNorm for each image"):
        check_conditions(small_oat())
    check_conditions(small())
