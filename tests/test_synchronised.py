"""BatchNorm over the images of all processes."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from generalist import engine
from generalist.engine.sync_batchnorm import SynchronisedBatchNorm
from generalist.randomness import generator
from generalist.tensors import ImageShape
from tests.ranks import forking, together
from tests.training_factory import small

SHAPE = ImageShape(1, 8, 8, 10, (0.3,), (0.4,))
MODEL = small("model={name: resnet18, width: 2}").model
WEIGHTS = engine.initial_weights(MODEL, SHAPE, 0)


def normalised(norm: nn.Module, given: Tensor, factors: Tensor) -> tuple[Tensor, ...]:
    """Output, gradients of input, weight and bias, and running statistics after two steps."""
    for _ in range(2):
        leaf = given.clone().requires_grad_()
        norm.zero_grad()
        result = norm(leaf)
        (result.square() * factors).sum().backward()
    tensors = result.detach(), leaf.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var
    return tuple(tensor.clone() for tensor in tensors)


def norm_with_weights() -> nn.BatchNorm2d:
    """Not the identity."""
    norm = nn.BatchNorm2d(5)
    nn.init.uniform_(norm.weight, 0.5, 2, generator=generator(0, "init"))
    nn.init.uniform_(norm.bias, -1, 1, generator=generator(1, "init"))
    return norm


@forking
@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_batchnorm_over_processes_is_that_of_all_images(offset: float, tmp_path: Path) -> None:
    """Against nn.BatchNorm2d in float64 on all 7 images, 2 or 3 of which each process has."""
    given = torch.randn(7, 5, 3, 4, generator=generator(0, "order")).add_(offset)
    factors = torch.rand(7, 5, 3, 4, generator=generator(1, "order"))

    def part(group: engine.ProcessGroup) -> tuple[Tensor, ...]:
        rows = group.rows(len(given))
        own = given[rows].contiguous(memory_format=torch.channels_last)
        return normalised(SynchronisedBatchNorm(norm_with_weights(), group), own, factors[rows])

    parts = list(zip(*together(tmp_path, part, size=3), strict=True))
    found = [torch.cat(parts[0]), torch.cat(parts[1]), sum(parts[2]), sum(parts[3]), parts[4][0], parts[5][0]]
    wanted = normalised(norm_with_weights().double(), given.double(), factors.double())
    scale = 1e-6 * (1 + offset)  # float32 keeps so much of the numbers that come in
    for own, expected in zip(found, wanted, strict=True):
        torch.testing.assert_close(own.double(), expected, rtol=scale, atol=scale)
    assert all(torch.equal(own, parts[4][0]) for own in parts[4])
    assert all(torch.equal(own, parts[5][0]) for own in parts[5])


@forking
def test_batchnorm_keeps_its_names_tensors_and_eval_mode(tmp_path: Path) -> None:
    """States fit in both directions, a copy is one, and in eval mode nobody is asked."""

    def kept(group: engine.ProcessGroup) -> bool:
        model = engine.model_with(MODEL, SHAPE, WEIGHTS, on=torch.device("cpu"))
        before = dict(model.state_dict(keep_vars=True))
        images = torch.rand(3, 1, 8, 8, generator=generator(0, "order"))
        expected = model(images)
        shared = engine.convert_sync_batchnorm(model, group)
        after = dict(shared.state_dict(keep_vars=True))
        assert list(after) == list(before)
        assert all(after[name] is before[name] for name in before)
        if group.rank == 0:  # alone: a message would wait for ever
            assert torch.equal(shared(images), expected)
            assert torch.equal(copy.deepcopy(shared)(images), expected)
        return any(isinstance(own, SynchronisedBatchNorm) for own in shared.modules())

    assert together(tmp_path, kept) == [True, True]
    model = engine.model_with(MODEL, SHAPE, WEIGHTS, on=torch.device("cpu"))
    assert engine.convert_sync_batchnorm(model, engine.ProcessGroup()) is model
    assert not any(isinstance(own, SynchronisedBatchNorm) for own in model.modules())
