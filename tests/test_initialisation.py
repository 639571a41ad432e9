"""Initial weights: from a keyed generator alone, and not by forgetting."""

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from generalist.config import ModelOptions
from generalist.models import Classifier, build, initialise
from generalist.tensors import ImageShape
from tests.model_factory import GREY, RGB, TINY, made, numbers, options, settle


@pytest.mark.parametrize("name", sorted(TINY))
def test_constants_are_no_state(name: str) -> None:
    """Mean and deviation survive building, and are not among the weights that are averaged and stored."""
    model = build(options(name, **TINY[name]), RGB)
    assert model.mean.flatten().tolist() == torch.tensor(RGB.mean).tolist()
    assert model.std.flatten().tolist() == torch.tensor(RGB.std).tolist()
    assert not {"mean", "std"} & set(model.state_dict())


@pytest.mark.parametrize("name", sorted(TINY))
def test_a_built_model_has_no_weights_until_they_are_given(name: str) -> None:
    """A forgotten initialisation shows at once: all is NaN, and everything is filled afterwards."""
    model = build(options(name, **TINY[name]), GREY)
    assert all(t.isnan().all() for t in model.state_dict().values() if t.is_floating_point())
    assert all((t == 0).all() for t in model.state_dict().values() if not t.is_floating_point())
    assert model.eval()(numbers(2)).isnan().all()
    initialise(model, torch.Generator().manual_seed(0))
    assert all(t.isfinite().all() for t in model.state_dict().values())


@pytest.mark.parametrize("name", sorted(TINY))
def test_building_and_initialising_leave_the_global_generator_alone(name: str) -> None:
    """The global generator's state is the same before and after."""
    before = torch.get_rng_state()
    made(name)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", sorted(TINY))
def test_initial_weights_are_those_of_torch(name: str) -> None:
    """A keyed generator gives the weights that torch's constructors draw from a global one of the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        reference = options(name, **TINY[name]).build(GREY).state_dict()  # type: ignore[attr-defined]
    model = made(name, seed=3).state_dict()
    assert list(model) == list(reference)
    assert all(torch.equal(model[key], reference[key]) for key in reference)


def test_initial_weights_depend_on_the_seed_alone() -> None:
    """Two Python threads that build at once get the same bits as one; another seed gives others."""

    def weights(seed: int) -> Tensor:
        return torch.cat([tensor.flatten() for tensor in made("resnet18", seed=seed).parameters()])

    alone = weights(0)
    with ThreadPoolExecutor(2) as pool:
        assert all(torch.equal(together, alone) for together in pool.map(weights, [0] * 8))
    assert not torch.equal(weights(1), alone)


def test_initialising_undoes_training() -> None:
    """BatchNorm's statistics and counters are reset, too."""
    model = made("resnet18")
    fresh = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    model.train()(numbers(4, GREY))
    settle(model)
    initialise(model, torch.Generator().manual_seed(0))
    assert all(torch.equal(tensor, fresh[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("layer", [nn.LayerNorm(2), nn.PReLU(), nn.InstanceNorm1d(2, affine=True)])
def test_an_unknown_layer_is_not_initialised_by_guess(layer: nn.Module) -> None:
    """A parameter whose distribution is unknown is an error, before anything is drawn."""
    linear = nn.Linear(2, 2)
    before, draw = linear.weight.clone(), torch.Generator().manual_seed(0)
    state = draw.get_state()
    with pytest.raises(TypeError, match=rf"1\.weight, which belongs to a {type(layer).__name__}"):
        initialise(nn.Sequential(linear, layer), draw)
    assert torch.equal(linear.weight, before)
    assert torch.equal(draw.get_state(), state)


def test_a_constant_must_name_its_device() -> None:
    """A buffer made without a device holds nothing after building, and says so by NaN."""

    class Careless(Classifier):
        def __init__(self, shape: ImageShape) -> None:
            super().__init__(shape)
            self.register_buffer("kept", torch.ones(2, device="cpu"), persistent=False)
            self.register_buffer("lost", torch.ones(2), persistent=False)

        def embed(self, normalised: Tensor) -> Tensor:
            return normalised.flatten(1)

    class Options(type(options("small_cnn"))):  # type: ignore[misc]
        def build(self, shape: ImageShape) -> Classifier:
            return Careless(shape)

    model = build(Options(name="small_cnn"), GREY)
    assert model.get_buffer("kept").tolist() == [1, 1]
    assert all(math.isnan(value) for value in model.get_buffer("lost").tolist())


def test_options_without_a_network_are_refused() -> None:
    """Only an architecture can be built."""
    with pytest.raises(TypeError, match="ModelOptions is not an architecture"):
        build(ModelOptions(name="none"), GREY)
