"""Perturbations of weights: AWP and SAM by their formulas, and what each one keeps in a step and in a training."""

import copy
from pathlib import Path

import pytest
import torch

from generalist import engine
from generalist.config import load
from generalist.config.section import part_names
from generalist.data import Dataset
from generalist.errors import BadInput
from generalist.expert_state import ExpertSpec, initial_state
from generalist.experts import Expert
from generalist.objectives import Context
from generalist.randomness import generator
from generalist.tensors import Batch, ImageShape
from tests.training_factory import abandon, digests, finish, small

SHAPE = ImageShape(1, 8, 8, 10, (0.3,), (0.4,))
PERTURBED = "experts.robust.perturbation={name: %s}"


def expert(*overrides: str) -> Expert:
    """Return a new one on a network with BatchNorm; without momentum and decay, a step is lr times its gradient."""
    plain = "experts.robust.optimizer={name: sgd, lr: 0.1, momentum: 0}"
    config = small("model={name: resnet18, width: 4}", plain, *overrides)
    spec = ExpertSpec(config.experts["robust"], None, seed=0, batch_size=12, total=10, engine=config.engine)
    weights = engine.initial_weights(config.model, SHAPE, 0)
    return Expert(spec, initial_state(weights, spec), config.model, SHAPE, torch.device("cpu"))


@pytest.fixture
def batch() -> Batch:
    """Twelve random images."""
    draw = torch.Generator().manual_seed(1)
    labels = torch.randint(10, (12,), generator=draw)
    return Batch(torch.rand(12, 1, 8, 8, generator=draw), labels, torch.arange(12))


def gradients(own: Expert, batch: Batch, attacked: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of the objective in training mode, on a copy of everything."""
    model = copy.deepcopy(own.learner.model)
    value = torch.nn.functional.cross_entropy(model(attacked), batch.labels)
    names = [name for name, _ in model.named_parameters()]
    return dict(zip(names, torch.autograd.grad(value, list(model.parameters())), strict=True))


def test_a_step_of_awp_is_the_papers(batch: Batch) -> None:
    """w - lr grad(w + v), with v = gamma ||w|| g / ||g|| layer by layer; statistics follow the second pass alone."""
    gamma = 0.1
    own = expert(f"experts.robust.perturbation={{name: awp, gamma: {gamma}}}")
    other = expert()
    before = {name: value.detach().clone() for name, value in own.learner.model.named_parameters()}
    draw = generator(0, "attack", 0, 0)
    attacked = own.objective.attacked(Context(draw), own.learner, batch)
    ascent = gradients(own, batch, attacked)
    moved = {
        name: value + gamma * value.norm() * ascent[name] / ascent[name].norm() if value.ndim > 1 else value
        for name, value in before.items()
    }
    other.learner.model.load_state_dict(moved, strict=False)
    there = gradients(other, batch, attacked)
    other.learner.model(attacked)
    own.step(batch, 1, 0)
    for name, value in own.learner.model.named_parameters():
        torch.testing.assert_close(value.detach(), before[name] - 0.1 * there[name], rtol=1e-4, atol=1e-5)
    for one, two in zip(own.learner.model.buffers(), other.learner.model.buffers(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


def test_a_step_of_sam_is_the_papers(batch: Batch) -> None:
    """w - lr grad(w + v), with v = rho g / ||g|| over all weights, biases and scales too; in float64."""
    rho, own = 0.5, expert("experts.robust.perturbation={name: sam, rho: 0.5}")
    attacked = own.objective.attacked(Context(generator(0, "attack", 0, 0)), own.learner, batch).double()
    slow = copy.deepcopy(own.learner.model).double()

    def slow_gradients() -> list[torch.Tensor]:
        value = torch.nn.functional.cross_entropy(slow(attacked), batch.labels)
        return list(torch.autograd.grad(value, list(slow.parameters())))

    before = [value.detach().clone() for value in slow.parameters()]
    ascent = slow_gradients()
    length = sum(float(gradient.square().sum()) for gradient in ascent) ** 0.5
    slow.load_state_dict(own.learner.model.state_dict())  # statistics follow the second pass alone
    for value, start, gradient in zip(slow.parameters(), before, ascent, strict=True):
        value.data = start + rho / length * gradient
    there = slow_gradients()
    own.step(batch, 1, 0)
    for value, start, gradient in zip(own.learner.model.parameters(), before, there, strict=True):
        torch.testing.assert_close(value.detach().double(), start - 0.1 * gradient, rtol=1e-4, atol=1e-5)
    for one, two in zip(own.learner.model.buffers(), slow.buffers(), strict=True):
        torch.testing.assert_close(one.double(), two.double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", part_names("perturbations"))
def test_each_has_an_effect_and_resumes_to_the_same_bits(dataset: Dataset, tmp_path: Path, name: str) -> None:
    """By its defaults; stopped after an epoch it goes on from the store."""
    few = ("training.epochs=2", "mixing.warm_up=1")
    options = (PERTURBED % name, *few)
    whole = digests(finish(small(*options), dataset, tmp_path / "whole")[1])
    assert whole["robust"] != digests(finish(small(*few), dataset, tmp_path / "plain")[1])["robust"]
    abandon(small(*options), dataset, tmp_path / "cut", after=3)
    assert digests(finish(small(*options), dataset, tmp_path / "cut")[1]) == whole


def test_without_strength_a_step_is_a_plain_one(batch: Batch) -> None:
    """To the bit, as before AWP begins."""
    plain, waiting = expert(), expert("experts.robust.perturbation={name: awp, gamma: [[0, 0], [0.5, 0], [0.5, 0.01]]}")
    for own in (plain, waiting):
        own.step(batch, 1, 0)
    assert all(torch.equal(value, plain.weights[name]) for name, value in waiting.weights.items())
    for own in (plain, waiting):
        own.step(batch, 6, 1)
    assert not all(torch.equal(value, plain.weights[name]) for name, value in waiting.weights.items())


def test_a_share_beyond_one_is_refused() -> None:
    """The sentence says what gamma is."""
    with pytest.raises(BadInput, match="'gamma' must lie between 0 and 1: a share of the weights' norm"):
        load(preset="digits", overrides=["experts.robust.perturbation={name: awp, gamma: 5}"])
