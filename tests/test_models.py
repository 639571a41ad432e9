"""Architectures: their published form, and images of any small size."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from generalist.errors import BadInput
from generalist.models import build, initialise
from generalist.models.layers.residual import BasicBlock, PreActivationBlock
from generalist.tensors import ImageShape
from generalist.torchvision_compat import torchvision
from tests.model_factory import RGB, TINY, made, numbers, options, settle


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
    ours = made("resnet18", RGB, width=64).eval()
    settle(ours)
    with torch.random.fork_rng(devices=[]):
        theirs = torchvision.models.resnet18(num_classes=10).eval()
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
        shortcut = norm(F.conv2d(hidden, projection.get_parameter("weight"), stride=stride))
    assert torch.equal(post(hidden), F.relu(inner + shortcut))

    active = F.relu(pre.bn1(hidden))
    inner = pre.conv2(F.relu(pre.bn2(pre.conv1(active))))
    shortcut = hidden if same else F.conv2d(active, pre.get_parameter("shortcut.weight"), stride=stride)
    assert torch.equal(pre(hidden), inner + shortcut)
    assert pre(hidden).shape == (2, outputs, -(-5 // stride), -(-4 // stride))


@pytest.mark.parametrize("name", ["preact_resnet18", "wide_resnet"])
def test_pre_activation_ends_with_an_activation(name: str) -> None:
    """The last block's sum is normalised and rectified before the mean over pixels (He et al. 2016b, section 3)."""
    model = made(name, RGB).eval()
    settle(model)
    sums: list[Tensor] = []
    last = list(model.get_submodule("blocks").children())[-1]
    last.register_forward_hook(lambda _module, _inputs, output: sums.append(output))
    images = numbers(2, RGB)
    logits = model(images)
    hidden = F.relu(model.get_submodule("bn")(sums[0]))
    assert torch.equal(logits, model.get_submodule("linear")(hidden.mean(dim=(2, 3))))


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
