"""Architectures: their published form, images of any small size, and weights from a keyed generator alone."""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from generalist.config import ModelOptions
from generalist.config.section import plugin, plugin_names
from generalist.errors import BadInput
from generalist.models import Classifier, build, initialise
from generalist.models.layers.residual import BasicBlock, PreActivationBlock
from generalist.tensors import ImageShape

TINY: dict[str, dict[str, Any]] = {
    "small_cnn": {"width": 3},
    "resnet18": {"width": 2},
    "preact_resnet18": {"width": 2},
    "wide_resnet": {"depth": 10, "widen": 2, "width": 2},
}
RGB = ImageShape(3, 32, 32, 10, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
GREY = ImageShape(1, 8, 8, 10, mean=(0.3,), std=(0.4,))


def options(name: str, **own: Any) -> ModelOptions:
    chosen = plugin("models", {"name": name, **own})
    assert isinstance(chosen, ModelOptions)
    return chosen


def made(name: str, shape: ImageShape = GREY, seed: int = 0, **own: Any) -> Classifier:
    model = build(options(name, **(own or TINY[name])), shape)
    initialise(model, torch.Generator().manual_seed(seed))
    return model


def numbers(count: int, shape: ImageShape = GREY, seed: int = 1) -> Tensor:
    return torch.rand(count, shape.channels, shape.height, shape.width, generator=torch.Generator().manual_seed(seed))


def settle(model: nn.Module, seed: int = 2) -> None:
    """Give every BatchNorm2d weights and statistics that are far from the identity."""
    draw = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            with torch.no_grad():
                for tensor in (module.weight, module.bias, module.running_mean):
                    tensor.copy_(torch.randn(tensor.shape, generator=draw))
                module.running_var.copy_(0.5 + torch.rand(module.running_var.shape, generator=draw))


def test_the_architectures_are_those_of_the_issue() -> None:
    """Each file of the package is one architecture, and shared parts are none."""
    assert plugin_names("models") == sorted(TINY)


@pytest.mark.parametrize(
    ("name", "own", "parameters"),
    [
        ("resnet18", {}, 11_173_962),
        ("preact_resnet18", {}, 11_172_170),
        ("wide_resnet", {}, 36_479_194),
        ("wide_resnet", {"depth": 34, "widen": 10}, 46_160_474),
        ("wide_resnet", {"depth": 16, "widen": 4}, 2_748_890),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, own: dict[str, Any], parameters: int) -> None:
    """On CIFAR-10 every architecture has exactly as many parameters as in the literature."""
    with torch.device("meta"):
        model = options(name, **own).build(RGB)  # type: ignore[attr-defined]
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@settings(max_examples=12, deadline=None)
@given(
    name=st.sampled_from(sorted(TINY)),
    channels=st.sampled_from([1, 3]),
    height=st.integers(8, 13),
    width=st.integers(8, 13),
    classes=st.integers(2, 7),
    count=st.integers(1, 3),
)
def test_any_small_image_gives_finite_logits(
    name: str, channels: int, height: int, width: int, classes: int, count: int
) -> None:
    """Every architecture takes grey and colour images of even and odd sizes, and gives one logit a class."""
    shape = ImageShape(channels, height, width, classes, mean=(0.5,) * channels, std=(0.25,) * channels)
    model = made(name, shape).eval()
    images = numbers(count, shape).requires_grad_()
    logits = model.decision(model(images))
    assert logits.shape == (count, classes)
    assert logits.isfinite().all()
    (gradient,) = torch.autograd.grad(logits.square().sum(), images)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("name", sorted(TINY))
def test_normalisation_is_inside(name: str) -> None:
    """A model for pixels with mean m and deviation s at x is the model without them at (x - m) / s."""
    plain = ImageShape(3, 8, 8, 4, mean=(0.0,) * 3, std=(1.0,) * 3)
    own = ImageShape(3, 8, 8, 4, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    images = numbers(2, plain)
    means, stds = (torch.tensor(values).view(1, 3, 1, 1) for values in (own.mean, own.std))
    assert torch.equal(made(name, own).eval()(images), made(name, plain).eval()((images - means) / stds))


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


@pytest.mark.parametrize("layer", [nn.LayerNorm(2), nn.PReLU(), nn.BatchNorm1d(2)])
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


@pytest.mark.parametrize(
    ("name", "least"), [("resnet18", "8 × 8"), ("preact_resnet18", "8 × 8"), ("wide_resnet", "4 × 4")]
)
def test_too_small_images_are_refused(name: str, least: str) -> None:
    """An image must have two pixels to halve each time; the sentence says how many that needs."""
    size = int(least[0])
    small = ImageShape(1, size, size - 1, 2, mean=(0.5,), std=(0.5,))
    with pytest.raises(BadInput, match=rf"model {name} .* at least {least} pixels, .* {size} × {size - 1}"):
        build(options(name, **TINY[name]), small)
    enough = ImageShape(1, size, size, 2, mean=(0.5,), std=(0.5,))
    assert made(name, enough).eval()(numbers(1, enough)).shape == (1, 2)


@pytest.mark.parametrize("depth", [4, 9, 11, 20, 32])
def test_a_wide_resnet_has_whole_blocks(depth: int) -> None:
    """A depth that is not 6 n + 4 is refused in the configuration."""
    with pytest.raises(ValidationError, match=r"6 n \+ 4, such as 10"):
        options("wide_resnet", depth=depth)


def test_resnet18_is_torchvisions_but_for_the_stem() -> None:
    """With a 3×3 stem and no max-pooling, torchvision's ResNet-18 and ours give the same logits."""
    compat = pytest.importorskip("generalist.torchvision_compat")
    ours = made("resnet18", RGB, width=64).eval()
    settle(ours)
    with torch.random.fork_rng(devices=[]):
        theirs = compat.torchvision.models.resnet18(num_classes=10).eval()
    theirs.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    theirs.maxpool = nn.Identity()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    images = numbers(2, RGB)
    with torch.no_grad():
        expected = theirs((images - ours.mean) / ours.std)
        torch.testing.assert_close(ours(images), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(("outputs", "stride"), [(2, 1), (3, 1), (2, 2), (3, 2)])
def test_blocks_are_the_papers_formulas(outputs: int, stride: int) -> None:
    """Both blocks equal their formulas; the pre-activated shortcut passes the raw input on where it can."""
    hidden = torch.randn(2, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    post, pre = BasicBlock(2, outputs, stride).eval(), PreActivationBlock(2, outputs, stride).eval()
    for block in (post, pre):
        initialise(block, torch.Generator().manual_seed(1))
        settle(block)
    inner = post.bn2(post.conv2(F.relu(post.bn1(post.conv1(hidden)))))
    same = (outputs, stride) == (2, 1)
    if same:
        shortcut = hidden
    else:
        projection, norm = post.shortcut
        shortcut = norm(F.conv2d(hidden, projection.weight, stride=stride))
    assert torch.equal(post(hidden), F.relu(inner + shortcut))

    active = F.relu(pre.bn1(hidden))
    inner = pre.conv2(F.relu(pre.bn2(pre.conv1(active))))
    shortcut = hidden if same else F.conv2d(active, pre.shortcut.weight, stride=stride)  # type: ignore[union-attr, arg-type]
    assert torch.equal(pre(hidden), inner + shortcut)
    assert pre(hidden).shape == (2, outputs, -(-5 // stride), -(-4 // stride))


@pytest.mark.parametrize(("name", "sizes"), [("resnet18", [32, 16, 8, 4]), ("wide_resnet", [32, 16, 8])])
def test_every_stage_but_the_first_halves(name: str, sizes: list[int]) -> None:
    """The CIFAR form keeps the full resolution in the stem and the first stage."""
    model = made(name, RGB).eval()
    seen: list[int] = []
    for module in model.modules():
        if isinstance(module, BasicBlock | PreActivationBlock):
            module.register_forward_hook(lambda _module, _inputs, output: seen.append(output.shape[-1]))
    model(numbers(1, RGB))
    assert list(dict.fromkeys(seen)) == sizes


def test_small_cnn_does_not_lose_pixels_at_odd_sizes() -> None:
    """Every pixel of an odd image has an influence on the logits."""
    shape = ImageShape(1, 7, 5, 3, mean=(0.5,), std=(0.5,))
    images = numbers(1, shape).requires_grad_()
    model = made("small_cnn", shape, width=16).eval()
    (gradient,) = torch.autograd.grad(model(images).square().sum(), images)
    assert (gradient != 0).all()
