"""What the cascade does not believe, what it flags, and what it refuses."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from generalist.attacks import VERSIONS, autoattack, fixed_batches, misclassified
from generalist.attacks.autoattack_config import AttackRun, Claims
from generalist.attacks.losses import Network
from generalist.attacks.members import apgd_ce
from generalist.errors import BadInput
from generalist.threats import Threat
from tests.strategies import generator, problem

THREAT = Threat("linf", 0.06)
TWO: dict[str, Any] = {"version": "quick", "attacks": ["apgd-ce", "square"], "square_queries": 60}


# Successes that are none, and other signs of trouble.


def test_a_success_that_a_second_pass_denies_is_none():
    """A network that answers otherwise where gradients are taken is not broken by that, and is flagged."""
    pixels, weight = torch.rand(10, 1, 3, 3, generator=generator(0)), torch.randn(9, 2, generator=generator(0))

    def two_faced(points: torch.Tensor) -> torch.Tensor:
        logits = points.flatten(1) @ weight
        return logits if torch.is_grad_enabled() else torch.tensor([5.0, 0.0]).expand(len(points), 2)

    result = autoattack(two_faced, pixels, torch.zeros(10).long(), Threat("linf", 0.99), **TWO)
    assert result.robust.all() and "unconfirmed successes" in result.flags
    assert torch.equal(result.adversarial, pixels)


@pytest.mark.parametrize("cheat", [lambda x: (x + 0.11).clamp(max=1), lambda x: x + 0.05], ids=["ball", "range"])
def test_a_success_outside_ball_or_pixel_range_is_none(monkeypatch, cheat):
    """Whatever the attack claims, and even if the network is fooled there."""
    pixels = torch.full((10, 1, 3, 3), 0.5)
    pixels[:, :, 0, 0] = 1.0

    def network(points: torch.Tensor) -> torch.Tensor:
        bright = points.flatten(1).mean(1) - pixels[0].mean()
        return torch.stack([0.01 - bright, bright], dim=1)

    def cheating(target, images, labels, streams) -> Claims:
        return torch.ones(len(images), dtype=torch.bool), cheat(images)

    monkeypatch.setattr(
        apgd_ce, "runs", lambda setting: iter([AttackRun("cheating", 1, setting.attack_target, cheating)])
    )
    labels = torch.zeros(10).long()
    assert misclassified(network(cheat(pixels)), labels).all()
    result = autoattack(network, pixels, labels, Threat("linf", 0.1), attacks=["apgd-ce"])
    assert result.robust.all() and "unconfirmed successes" in result.flags


def test_ties_are_broken_and_flagged():
    """A network that can't decide is not robust, though argmax may well give the label."""
    pixels = torch.rand(20, 1, 3, 3, generator=generator(0))
    undecided = autoattack(lambda x: torch.zeros(len(x), 3), pixels, torch.zeros(20).long(), THREAT)
    assert not undecided.clean.any() and set(undecided.fooled_by) == {"clean"}
    assert undecided.flags == ("ties",)


def test_three_images_raise_no_flag():
    """No threshold is finer, whatever share of the images they are."""
    pixels = torch.rand(3, 1, 3, 3, generator=generator(0))
    constant = torch.tensor([1.5, 0.0])
    assert autoattack(lambda x: constant.expand(len(x), 2), pixels, torch.zeros(3).long(), THREAT, **TWO).flags == ()
    more = torch.rand(4, 1, 3, 3, generator=generator(0))
    blind = autoattack(lambda x: constant.expand(len(x), 2), more, torch.zeros(4).long(), THREAT, **TWO)
    assert blind.flags == ("robust at a huge eps", "zero gradients") and blind.robust.all()


@pytest.fixture
def tiles_of_32(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more images in a pass than there are."""
    monkeypatch.setattr(fixed_batches, "_TILE", 32)


@pytest.mark.usefixtures("tiles_of_32")
@pytest.mark.parametrize("threat", [THREAT, Threat("l2", 0.3), Threat("l1", 1.5)], ids=str)
def test_an_honest_network_raises_no_flag(threat):
    """Otherwise flags would mean nothing."""
    network, pixels, labels = problem(32)
    attacks = VERSIONS["standard"].members
    result = autoattack(network, pixels, labels, threat, version="quick", attacks=attacks, square_queries=60)
    assert result.flags == ()


class SignFlipped(torch.autograd.Function):
    """The identity, with the opposite of its gradient."""

    @staticmethod
    def forward(_, points):
        return points.clone()

    @staticmethod
    def backward(_, gradient):
        return -gradient


def memory(network: nn.Module) -> Network:
    """Return a network in which what was asked first colours all later answers."""
    first: list[torch.Tensor] = []

    def remembering(points: torch.Tensor) -> torch.Tensor:
        first.append(network(points).detach()[:1])
        return network(points) + (len(first) > 1) * first[0]

    return remembering


def batch_norm(network: nn.Module) -> Network:
    """Normalises by the batch that it sees."""
    return lambda points: network((points - points.mean(0)) / (points.std(0) + 0.1))


def dummies(network: nn.Module) -> Network:
    """Twice the classes; where the best class wins by less than 1.5, its dummy wins."""

    def doubled(points: torch.Tensor) -> torch.Tensor:
        logits = network(points)
        best = logits.topk(2).values
        lead = best[:, :1] - best[:, 1:]
        return torch.cat([logits, logits + 1.5 - lead], dim=1)

    return doubled


def noise(network: nn.Module) -> Network:
    """Return a network that adds random numbers to its input."""
    return lambda points: network(points + 0.02 * torch.randn_like(points))


CONTROLS: dict[str, tuple[Callable[[nn.Module], Network], str]] = {
    "scaled": (lambda network: lambda x: network(x) * 1e5, "zero gradients"),
    "softmax": (lambda network: lambda x: network(x).softmax(1), "softmax outputs"),
    "quantised": (lambda network: lambda x: network((x * 8).round() / 8), "zero gradients"),
    "quantised, by Square": (lambda network: lambda x: network((x * 8).round() / 8), "square beats gradients"),
    "dummy classes": (dummies, "unused outputs"),
    "noise": (noise, "random"),
    "dropout": (lambda network: lambda x: network(nn.functional.dropout(x, 0.2)), "random"),
    "memory": (memory, "random"),
    "batch norm": (batch_norm, "batch-dependent"),
    "flipped sign": (lambda network: lambda x: network(SignFlipped.apply(x)), "gradient mismatch"),
    "flat everywhere": (lambda network: lambda x: network(x.detach() * 0 + 0.5), "robust at a huge eps"),
}


@pytest.mark.usefixtures("tiles_of_32")
@pytest.mark.parametrize(("control", "flag"), CONTROLS.values(), ids=CONTROLS)
def test_each_negative_control_is_flagged(control, flag):
    """What an evaluation must notice (G9)."""
    network, pixels, _ = problem(32, (1, 8, 8))
    torch.manual_seed(0)
    defence = control(network)
    labels = network(pixels).argmax(1)
    result = autoattack(defence, pixels, labels, Threat("linf", 0.05), **TWO | {"square_queries": 100})
    assert flag in result.flags


# Any number of images, and what is refused.


@pytest.mark.parametrize("count", [0, 1])
def test_any_number_of_images(count):
    """None at all, one survivor, one that is classified wrongly."""
    network, pixels, labels = problem(3)
    for first in (0, 1):  # of the three the first is classified wrongly
        rows = slice(first, first + count)
        result = autoattack(network, pixels[rows], labels[rows], THREAT, **TWO)
        assert len(result.robust) == len(result.clean) == len(result.fooled_by) == len(result.adversarial) == count
        assert result.flags == () and (count == 0 or bool(result.clean[0]) == (first == 1))


def test_all_wrong_and_all_broken():
    """When nobody is left the cascade ends."""
    network, pixels, _ = problem(12)
    wrong = autoattack(network, pixels, (network(pixels).argmax(1) + 1) % 4, THREAT)
    assert not wrong.clean.any() and (wrong.passes.forward == 4).all() and not wrong.passes.backward.any()
    broken = autoattack(network, pixels, network(pixels).argmax(1), Threat("linf", 0.9))
    assert broken.clean.all() and not broken.robust.any() and "square" not in broken.fooled_by


def asks(**changed):
    """Return the arguments of a call that makes sense, some of them changed."""
    network, pixels, labels = problem(10)
    return {"model": network, "images": pixels, "labels": labels, "threat": THREAT} | changed


_, PIXELS, LABELS = problem(10)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"version": "standart"}, "there is no version 'standart'"),
        ({"attacks": ["apgd"]}, "there is no attack 'apgd'; did you mean 'apgd-t'"),
        ({"attacks": []}, "'attacks' is empty"),
        ({"batch_size": 0}, "must be 1 at least"),
        ({"square_queries": 0}, "must be 1 at least"),
        ({"images": (PIXELS * 255).to(torch.uint8)}, r"must be float32 \[n, channels, height, width\], not uint8"),
        ({"images": PIXELS.double()}, "not float64"),
        ({"images": PIXELS.flatten(1)}, r"not float32 \[10, 36\]"),
        ({"images": PIXELS[:, :0]}, r"not float32 \[10, 0, 6, 6\]"),
        ({"images": PIXELS * 255}, r"pixels must lie in \[0, 1\], but they span \[0"),
        ({"images": PIXELS - 0.01}, "scale them first"),
        ({"images": PIXELS * torch.nan}, r"span \[nan"),
        ({"labels": LABELS.to(torch.int32)}, r"labels must be int64 \[10\], one class per image, not int32"),
        ({"labels": LABELS[:9]}, r"not int64 \[9\]"),
        ({"labels": LABELS - 5}, "is no class: classes are counted from 0"),
        ({"labels": LABELS + 4}, "is out of range: the model has 4 classes"),
        ({"model": lambda x: x.flatten(1)[:, :1]}, "the model has 1 outputs"),
        ({"model": lambda x: x}, r"must map 64 images to logits \[64, classes\], but gave an output of shape"),
        ({"model": lambda x: [x]}, "an output of type list"),
        ({"model": lambda x: x.flatten(1) * torch.nan}, "NaN logits for 10 of 10 images"),
    ],
)
def test_what_makes_no_sense_is_refused(changed, reason):
    """In one sentence that says what to mend."""
    arguments = asks(**changed)
    first = [arguments.pop(name) for name in ("model", "images", "labels", "threat")]
    with pytest.raises(BadInput, match=reason):
        autoattack(*first, **arguments)


def test_a_network_that_fails_only_under_attack_is_refused():
    """Not a number is no robustness: the point is neither broken nor not."""
    weight = torch.randn(36, 3, generator=generator(0))

    def network(points: torch.Tensor) -> torch.Tensor:
        far = (points - PIXELS[:1]).abs().flatten(1).amax(1, keepdim=True) > 0.05
        return torch.where(far, torch.nan, points.flatten(1) @ weight)

    labels = network(PIXELS[:1]).argmax(1)
    with pytest.raises(BadInput, match="NaN logits"):
        autoattack(network, PIXELS[:1], labels, Threat("linf", 0.1))
