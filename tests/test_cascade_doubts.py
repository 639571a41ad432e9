"""What the cascade does not believe, what it flags, and what it refuses."""

import pytest
import torch

from generalist.attacks import autoattack, cascade, fooled
from generalist.attacks.cascade import Attempt
from generalist.errors import BadInput
from generalist.threats import Threat
from tests.strategies import generator, problem

THREAT = Threat("linf", 0.06)
QUICK = {"square_queries": 60}


# Successes that are none, and other signs of trouble.


def test_a_success_that_a_second_pass_denies_is_none():
    """A network that answers otherwise where gradients are taken is not broken by that, and is flagged."""
    pixels, weight = torch.rand(10, 1, 3, 3, generator=generator(0)), torch.randn(9, 2, generator=generator(0))

    def two_faced(points: torch.Tensor) -> torch.Tensor:
        logits = points.flatten(1) @ weight
        return logits if torch.is_grad_enabled() else torch.tensor([5.0, 0.0]).expand(len(points), 2)

    result = autoattack(two_faced, pixels, torch.zeros(10).long(), Threat("linf", 1.0), **QUICK)
    assert result.robust.all() and result.flags == ("unconfirmed successes",)
    assert torch.equal(result.adversarial, pixels)


@pytest.mark.parametrize("cheat", [lambda x: (x + 0.11).clamp(max=1), lambda x: x + 0.05], ids=["ball", "range"])
def test_a_success_outside_ball_or_pixel_range_is_none(monkeypatch, cheat):
    """Whatever the attack claims, and even if the network is fooled there."""
    pixels = torch.full((10, 1, 3, 3), 0.5)
    pixels[:, :, 0, 0] = 1.0

    def network(points: torch.Tensor) -> torch.Tensor:
        bright = points.flatten(1).mean(1) - pixels[0].mean()
        return torch.stack([0.01 - bright, bright], dim=1)

    def cheating(model, images, labels, threat, streams) -> Attempt:
        sure = torch.ones(len(images), dtype=torch.bool)
        none = torch.zeros_like(labels)
        return Attempt(sure, cheat(images), none, none, ~sure)

    monkeypatch.setattr(cascade, "_apgd_ce", cheating)
    labels = torch.zeros(10).long()
    assert fooled(network(cheat(pixels)), labels).all()
    result = autoattack(network, pixels, labels, Threat("linf", 0.1), attacks=["apgd-ce"])
    assert result.robust.all() and result.flags == ("unconfirmed successes",)


def test_ties_are_broken_and_flagged():
    """A network that can't decide is not robust, though argmax may well give the label."""
    pixels = torch.rand(20, 1, 3, 3, generator=generator(0))
    undecided = autoattack(lambda x: torch.zeros(len(x), 3), pixels, torch.zeros(20).long(), THREAT)
    assert not undecided.clean.any() and set(undecided.fooled_by) == {"clean"}
    assert undecided.flags == ("ties",)


def test_gradients_that_are_hidden_are_flagged():
    """A network that rounds its input has no gradient, and Square breaks what APGD can't."""
    network, pixels, labels = problem(60, (1, 8, 8))

    def rounding(points: torch.Tensor) -> torch.Tensor:
        return network((points * 8).round() / 8)

    labels = network((pixels * 8).round() / 8).argmax(1)
    result = autoattack(rounding, pixels, labels, Threat("linf", 0.1), square_queries=300)
    assert result.flags == ("square beats gradients", "zero gradients")
    assert result.fooled_by.count("square") > 3
    alone = autoattack(rounding, pixels, labels, Threat("linf", 0.1), attacks=["square"], square_queries=300)
    assert alone.flags == (), "without a gradient attack there is nothing to beat"


def test_three_images_raise_no_flag():
    """No threshold is finer, whatever share of the images they are."""
    pixels = torch.rand(3, 1, 3, 3, generator=generator(0))
    constant = torch.tensor([1.0, 0.0])
    assert autoattack(lambda x: constant.expand(len(x), 2), pixels, torch.zeros(3).long(), THREAT, **QUICK).flags == ()
    more = torch.rand(4, 1, 3, 3, generator=generator(0))
    blind = autoattack(lambda x: constant.expand(len(x), 2), more, torch.zeros(4).long(), THREAT, **QUICK)
    assert blind.flags == ("zero gradients",) and blind.robust.all()


def test_an_honest_network_raises_no_flag():
    """Otherwise flags would mean nothing."""
    network, pixels, labels = problem(100)
    assert autoattack(network, pixels, labels, THREAT, square_queries=200).flags == ()


# Any number of images, and what is refused.


@pytest.mark.parametrize("count", [0, 1])
def test_any_number_of_images(count):
    """None at all, one survivor, one that is classified wrongly."""
    network, pixels, labels = problem(3)
    for first in (0, 1):  # of the three the first is classified wrongly
        rows = slice(first, first + count)
        result = autoattack(network, pixels[rows], labels[rows], THREAT, **QUICK)
        assert len(result.robust) == len(result.clean) == len(result.fooled_by) == len(result.adversarial) == count
        assert result.flags == () and (count == 0 or bool(result.clean[0]) == (first == 1))


def test_all_wrong_and_all_broken():
    """When nobody is left the cascade ends."""
    network, pixels, _ = problem(12)
    wrong = autoattack(network, pixels, (network(pixels).argmax(1) + 1) % 4, THREAT)
    assert not wrong.clean.any() and wrong.passes.forward.sum() == 12
    broken = autoattack(network, pixels, network(pixels).argmax(1), Threat("linf", 0.9))
    assert broken.clean.all() and not broken.robust.any() and "square" not in broken.fooled_by


def asks(**changed):
    """The arguments of a call that makes sense, some of them changed."""
    network, pixels, labels = problem(10)
    return {"model": network, "images": pixels, "labels": labels, "threat": THREAT} | changed


_, PIXELS, LABELS = problem(10)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"version": "standart"}, "there is no version 'standart'"),
        ({"attacks": ["apgd"]}, "there is no attack 'apgd'; did you mean 'apgd-ce'"),
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
