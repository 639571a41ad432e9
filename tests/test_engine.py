"""The engine: threads, devices, initial weights, and the network that attacks see."""

import threading

import pytest
import torch

from generalist import engine
from generalist.config import EngineOptions
from generalist.errors import BadInput
from generalist.models import build
from generalist.store import tensors_digest
from generalist.tensors import ImageShape
from tests.training_factory import small

SHAPE = ImageShape(1, 8, 8, 10, (0.3,), (0.4,))


def test_threads_are_set_inside_and_put_back() -> None:
    """Also where the block fails."""
    before = torch.get_num_threads()
    seen: list[int] = []

    def failing() -> None:
        with engine.threads(before + 1):
            seen.append(torch.get_num_threads())
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused() -> None:
    """One sentence with the mend."""
    with pytest.raises(BadInput, match=r"torch sees no CUDA device here: set training\.device to cpu"):
        engine.device("cuda")


@pytest.mark.parametrize("model", ["{name: small_cnn, width: 4}", "{name: resnet18, width: 2}"])
def test_initial_weights_depend_on_the_seed_alone(model: str) -> None:
    """Not on torch's global generator, and not on the Python thread."""
    options = small(f"model={model}").model
    torch.manual_seed(5)
    before = torch.get_rng_state()
    digests = [tensors_digest(engine.initial_weights(options, SHAPE, 0))]
    assert torch.equal(torch.get_rng_state(), before)

    def elsewhere() -> None:
        torch.rand(3)
        digests.append(tensors_digest(engine.initial_weights(options, SHAPE, 0)))

    threads = [threading.Thread(target=elsewhere) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(digests)) == 1
    assert tensors_digest(engine.initial_weights(options, SHAPE, 1)) != digests[0]


def test_the_attack_network_follows_its_model_without_gradients_of_its_own() -> None:
    """It is in eval mode, sees every optimizer step and every BatchNorm update, and leaves no gradients."""
    options = small("model={name: resnet18, width: 2}").model
    model = build(options, SHAPE)
    model.load_state_dict(engine.initial_weights(options, SHAPE, 0))
    model.train()
    shadow = engine.AttackNetwork(model, EngineOptions())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        optimizer.zero_grad()
        model(images).square().sum().backward()
        optimizer.step()
    assert model.training
    assert not shadow.training
    leaf = images.clone().requires_grad_()
    shadow(leaf).sum().backward()
    assert leaf.grad is not None
    assert all(parameter.grad is None for parameter in shadow.parameters())
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(shadow(images), model(images), rtol=0, atol=0)


def test_a_model_with_weights_has_copies_of_them() -> None:
    """Changing the model leaves the given weights as they are."""
    options = small().model
    weights = engine.initial_weights(options, SHAPE, 0)
    digest = tensors_digest(weights)
    model = engine.model_with(options, SHAPE, weights, on=torch.device("cpu"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert tensors_digest(weights) == digest
    assert not model.training
