"""Passes are counted as one counts them by hand, and a budget gives each training as many."""

import pytest
from torch import nn

from generalist.config import Config, load
from generalist.data import Dataset
from generalist.models import build
from generalist.training import cost
from pipelines.comparison.budget import length, of_length
from pipelines.comparison.spec import Budget
from tests.preset_factory import overrides


def _first_share(config: Config, dataset: Dataset) -> float:
    """Return what share of a forward pass the first convolution has, which needs no gradient in its images."""
    layers = [one for one in build(config.model, dataset.shape).modules() if isinstance(one, nn.Conv2d | nn.Linear)]
    height, width = dataset.shape.height // 2, dataset.shape.width // 2
    work = [one.weight.numel() * (height * width if isinstance(one, nn.Conv2d) else 1) for one in layers]
    return work[0] / sum(work)


def test_natural_training_is_a_forward_pass_and_its_gradients(dataset: Dataset) -> None:
    """Forward, gradients in weights, gradients in what comes from the layer below: none for the first one."""
    config = load(preset="digits-natural")
    images = len(dataset.train) * config.training.epochs
    assert cost.passes(config, dataset) == pytest.approx(images * (3 - _first_share(config, dataset)), rel=1e-9)


@pytest.mark.parametrize("steps", [1, 5])
def test_each_step_of_an_attack_is_a_forward_and_a_backward_pass(dataset: Dataset, steps: int) -> None:
    """A training that only attacks more costs so much more."""
    natural, attacked = load(preset="digits-natural"), load(
        preset="digits-pgd-at", overrides=[f"experts.robust.objective.attack.steps={steps}"]
    )  # fmt: skip
    apart = cost.passes(attacked, dataset) - cost.passes(natural, dataset)
    assert apart == pytest.approx(2 * steps * len(dataset.train) * attacked.training.epochs, rel=1e-9)


def test_experts_add_up_over_the_epochs_in_which_they_train(dataset: Dataset) -> None:
    """Generalist is both of its experts; one that stands still costs nothing."""
    alone = cost.passes(load(preset="digits-natural"), dataset)
    both = alone + cost.passes(load(preset="digits-pgd-at"), dataset)
    assert cost.passes(load(preset="digits"), dataset) == pytest.approx(both, rel=1e-9)
    anchored = load(preset="digits-anchored")
    natural = anchored.active("natural")
    longer = of_length(anchored, 2 * anchored.training.epochs)
    assert len(natural) < anchored.training.epochs and len(longer.active("natural")) == 2 * len(natural)
    assert cost.passes(longer, dataset) == pytest.approx(2 * cost.passes(anchored, dataset), rel=1e-9)


@pytest.mark.parametrize("name", ["digits", "digits-anchored", "digits-oat", "digits-mat", "digits-natural"])
def test_a_budget_in_passes_is_kept_to_half_an_epoch(dataset: Dataset, name: str) -> None:
    """Whatever the method; warm-up keeps its share."""
    whole, budget = load(preset=name), 4e5
    config = of_length(whole, length(whole, dataset, Budget(budget, "passes")))
    per_epoch = cost.passes(config, dataset) / config.training.epochs
    sequences = any(expert.sequence for expert in config.experts.values())  # whose windows are rounded, too
    assert abs(cost.passes(config, dataset) - budget) <= per_epoch * (2.0 if sequences else 0.51)
    if whole.mixing is not None and config.mixing is not None:
        before = whole.mixing.warm_up / whole.training.epochs
        assert config.mixing.warm_up == round(before * config.training.epochs)


def test_seconds_grow_with_the_work_and_a_budget_of_none_is_an_epoch(dataset: Dataset) -> None:
    """A few steps are timed; an attack of forty steps takes longer than none."""
    natural = load(preset="digits-natural", overrides=overrides("digits-natural"))
    attacked = load(
        preset="digits-pgd-at",
        overrides=[*overrides("digits-pgd-at"), "experts.robust.objective.attack.steps=40"],
    )
    assert 0 < cost.seconds(natural, dataset) < cost.seconds(attacked, dataset)
    assert length(natural, dataset, Budget(1e-9, "s")) == 1
