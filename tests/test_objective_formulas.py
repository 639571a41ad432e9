"""Objectives against their formulas, written from their sources alone and computed in float64."""

import copy

import pytest
import torch
from torch import Tensor

from generalist.models import Classifier
from generalist.objectives import Learner
from generalist.tensors import Batch
from tests.objective_factory import THREAT, check_formula, context, new_learner, objective, random_batch


@pytest.fixture
def learner() -> Learner:
    """A small network with its initial weights."""
    return new_learner()


@pytest.fixture
def batch() -> Batch:
    """Twelve random images."""
    return random_batch()


def slow_kl(p: Tensor, q: Tensor) -> Tensor:
    """Return KL(p || q) of each row of probabilities."""
    return (p * (p / q).log()).sum(1)


@pytest.mark.parametrize(("progress", "beta"), [(0.0, 0.0), (0.5, 0.0), (0.525, 1.0), (0.9, 1.0)])
def test_rebat_is_pgd_at_and_the_divergence_from_its_average(
    learner: Learner, batch: Batch, progress: float, beta: float
) -> None:
    """From epoch 105 of 200 on, if nothing else is said."""
    own, step = objective(name="rebat", **THREAT), context(progress=progress)
    attacked = own.attacked(step, learner, batch)
    assert torch.equal(attacked, objective(name="adversarial", **THREAT).attacked(context(), learner, batch))

    def slow(model: Classifier) -> Tensor:
        assert learner.average is not None
        p = model(attacked.double()).softmax(1)
        steady = copy.deepcopy(learner.average.network).double()(attacked.double()).softmax(1).detach()
        return -p[torch.arange(len(p)), batch.labels].log().mean() + beta * slow_kl(steady, p).mean()

    check_formula(own, step, learner, batch, attacked, slow)
