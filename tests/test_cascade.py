"""The cascade: verdicts that depend on nothing but the image, and that somebody else can confirm."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from generalist.attacks import VERSIONS, autoattack, fixed_batches, margin, misclassified, model_checks
from generalist.errors import BadInput
from generalist.threats import Threat
from tests.cascade_bits import everything
from tests.exact_linear import exact_distances
from tests.strategies import generator, linear_net, problem

THREATS = [Threat("linf", 0.06), Threat("l2", 0.3), Threat("l1", 1.5)]
TWO: dict[str, Any] = {"version": "quick", "attacks": ["apgd-ce", "square"], "square_queries": 60}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Two attacks of few steps, few images at a time."""
    monkeypatch.setattr(model_checks, "_HUGE_STEPS", 2)
    monkeypatch.setattr(fixed_batches, "_TILE", 16)
    monkeypatch.setitem(VERSIONS, "quick", replace(VERSIONS["quick"], steps=6))
    return {**TWO, "square_queries": 20}


def test_nothing_of_the_callers_is_touched(few):
    """Modes part by part, requires_grad, .grad, arguments; and a module is attacked in eval mode whatever its mode."""
    network, pixels, labels = problem(12)
    network = nn.Sequential(network, nn.Dropout(0.5), nn.BatchNorm1d(4)).eval()
    expected = autoattack(network, pixels, labels, THREATS[0], **few)
    network[1].train()
    network[0][2].weight.requires_grad_(False)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    copies = pixels.clone(), labels.clone()
    assert everything(autoattack(network, pixels, labels, THREATS[0], **few)) == everything(expected)
    assert [part.training for part in network] == [False, True, False]
    assert not network[0][2].weight.requires_grad and network[0][0].weight.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(pixels, copies[0]) and torch.equal(labels, copies[1])


def test_modes_are_put_back_after_a_failure_too():
    """The model is the caller's."""
    network, pixels, labels = problem(5)
    network.train()
    with pytest.raises(BadInput):
        autoattack(network, pixels, labels + 100, THREATS[0])
    assert all(part.training for part in network.modules())


def test_it_works_where_gradients_are_switched_off(few):
    """Under no_grad and under inference_mode, also on tensors made there."""
    network, pixels, labels = problem(12)
    expected = autoattack(network, pixels, labels, THREATS[0], **few)
    with torch.no_grad():
        assert everything(autoattack(network, pixels, labels, THREATS[0], **few)) == everything(expected)
    with torch.inference_mode():
        made_here = pixels.clone(), labels.clone()
        inside = autoattack(network, *made_here, THREATS[0], **few)
    assert everything(inside) == everything(expected)


# What a verdict means.


@pytest.mark.parametrize(
    ("shape", "classes", "threat"),
    [((1, 5, 5), 5, THREATS[2]), ((1, 1, 1), 2, THREATS[0]), ((3, 4, 7), 3, THREATS[1])],
    ids=str,
)
def test_every_success_can_be_confirmed(shape, classes, threat, few):
    """By another pass, in another batch, with other company, inside ball and pixel range; the rest is the image."""
    network, pixels, labels = problem(24, shape, classes=classes)
    result = autoattack(network, pixels, labels, threat, **few)
    broken = result.clean & ~result.robust
    found = result.adversarial
    assert_close(result.margins, margin(network(found), labels).detach(), atol=1e-5, rtol=1e-4)
    assert torch.equal(result.margins > 0, result.robust) and torch.equal(result.correct, result.robust.float())
    assert found.dtype == torch.float32 and (found >= 0).all() and (found <= 1).all()
    assert (threat.distance(found, pixels) <= float(threat.eps) * (1 + 1e-6)).all()
    assert torch.equal(found[~broken], pixels[~broken])
    assert torch.equal(result.clean, ~misclassified(network(pixels), labels))
    if broken.any():
        assert misclassified(network(found[broken]), labels[broken]).all()
    for name, robust, clean in zip(result.fooled_by, result.robust, result.clean, strict=True):
        assert (name is None) == bool(robust) and (name == "clean") == (not clean)
        assert name in {None, "clean", "apgd-ce", "square"}


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_on_linear_models_verdicts_are_the_exact_ones(norm):
    """With two classes, robust means an exact distance above eps; with more, none nearer is called broken."""
    numbers = generator(0)
    for classes in (2, 5):
        pixels = torch.rand(30, 1, 5, 4, generator=numbers)
        network = linear_net(torch.randn(classes, 20, generator=numbers), torch.randn(classes, generator=numbers))
        labels = network(pixels).argmax(1)
        exact = exact_distances(network[1].weight.detach(), network[1].bias.detach(), pixels, labels, norm)
        eps = exact.median().item()
        clear = ((exact - eps).abs() > 0.01 * eps) if norm == "l2" else ((exact - eps).abs() > 1e-4 * eps)
        result = autoattack(network, pixels, labels, Threat(norm, eps), **TWO)
        assert not (exact[~result.robust] > eps).any()
        if classes == 2:
            assert torch.equal(result.robust[clear], (exact > eps)[clear])
        assert result.flags == ()


def test_each_attack_sees_only_survivors(few):
    """So the survivors of more attacks are a subset, and what is broken already costs no further pass."""
    network, pixels, labels = problem(40)
    threat = THREATS[0]
    gradient = autoattack(network, pixels, labels, threat, version="quick", attacks=["apgd-ce"])
    both = autoattack(network, pixels, labels, threat, **few)
    assert (gradient.robust | ~both.robust).all()
    gone = ~gradient.robust
    assert torch.equal(both.passes.forward[gone], gradient.passes.forward[gone])
    assert torch.equal(both.passes.backward, gradient.passes.backward)
    assert (both.passes.forward[gradient.robust] > gradient.passes.forward[gradient.robust]).all()
    alone = autoattack(network, pixels, labels, threat, attacks=["square"], square_queries=60)
    assert set(alone.fooled_by) == {"clean", "square", None} and not alone.passes.backward.any()


@pytest.mark.parametrize("threat", [THREATS[0], THREATS[2]], ids=str)
def test_passes_are_what_the_network_was_asked(monkeypatch, threat, short):
    """Counted at the network itself, with tiles of one image: clean pass, checks, attacks, confirmations."""
    monkeypatch.setattr(fixed_batches, "_TILE", 1)
    network, pixels, labels = problem(3)
    forward, backward = [], []
    network[0].register_forward_hook(lambda *call: forward.append(len(call[2])))
    network[0].register_full_backward_hook(lambda *call: backward.append(len(call[2][0])))
    # A callable has no faster view, which hooks would not see.
    result = autoattack(lambda images: network(images), pixels, labels, threat, **short | {"square_queries": 12})
    assert result.passes.forward.sum() == sum(forward) and result.passes.backward.sum() == sum(backward)
    wrong = ~result.clean
    assert (result.passes.forward[wrong] == 4).all() and (result.passes.backward[wrong] == 0).all()


def test_the_standard_cascade_needs_fewer_passes_than_the_original(monkeypatch):
    """Of a robust image: 1 + 101 + 909 + 1800 + 5001 forward, 101 + 909 + 900 backward, with ten classes."""
    monkeypatch.setattr(fixed_batches, "_TILE", 8)
    network, pixels, labels = problem(8, classes=10)
    result = autoattack(network, pixels, labels, Threat("linf", 0.004))
    robust = result.robust
    assert robust.sum() > 4 and (result.passes.forward < 7812).all()
    assert (result.passes.forward + result.passes.backward < 7812 + 1910).all()
    assert result.passes.backward[robust].float().mean() < 1910


def test_a_larger_radius_breaks_everything_in_the_end(few):
    """At a radius that holds nearly every image nothing is robust: otherwise gradients would lead nowhere."""
    network, pixels, labels = problem(40)
    for threat in (Threat("linf", 0.99), Threat("l2", 5.0)):
        assert not autoattack(network, pixels, labels, threat, attacks=["apgd-ce", "apgd-t"]).robust.any()
    nothing = autoattack(network, pixels, labels, Threat("linf", 0.0), **few)
    assert torch.equal(nothing.robust, nothing.clean)
