"""The engine: threads, devices, initial weights, and the network that attacks see."""

import threading
from pathlib import Path

import pytest
import torch

from generalist import engine
from generalist.config import EngineOptions, params_digest
from generalist.data import Dataset
from generalist.errors import BadInput
from generalist.models import build
from generalist.store import Store, tensors_digest
from generalist.tensors import ImageShape
from generalist.training import Trainer
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
    shadow = engine.FrozenNetwork(model, EngineOptions())
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


@pytest.mark.parametrize("there", [True, False])
def test_auto_is_settled_before_any_key_is_made(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CUDA GPU where there is one, else the CPU; digests are those of that device, and it is told."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    auto, named = small("training.device=auto"), small(f"training.device={'cuda' if there else 'cpu'}")
    assert engine.with_device(auto) == named and params_digest(engine.with_device(auto)) == params_digest(named)
    assert engine.with_device(named) is named
    assert engine.device("auto").type == named.training.device
    assert engine.told("auto").startswith("a GPU" if there else "the CPU")


def test_a_training_knows_no_auto(dataset: Dataset, tmp_path: Path) -> None:
    """Its states are those of the device that was found."""
    on = engine.device("auto").type
    auto, named = (Trainer(small(f"training.device={name}"), dataset, Store(tmp_path)) for name in ("auto", on))
    assert auto.config == named.config and auto.ends() == named.ends()
