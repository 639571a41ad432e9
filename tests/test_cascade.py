"""The cascade: verdicts that depend on nothing but the image, and that somebody else can confirm."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from generalist.attacks import autoattack, fooled, tiles
from generalist.attacks.cascade import Cascade
from generalist.errors import BadInput
from generalist.threats import Threat
from tests.strategies import exact_distances, generator, linear_net, problem

THREATS = [Threat("linf", 0.06), Threat("l2", 0.3)]
QUICK = {"square_queries": 60}


def verdicts(result: Cascade, rows: torch.Tensor | None = None) -> tuple[object, ...]:
    """Everything about each image, in a form that compares bit for bit."""
    rows = torch.arange(len(result.robust)) if rows is None else rows
    tensors = (result.robust, result.clean, result.adversarial, result.passes.forward, result.passes.backward)
    names = [result.fooled_by[row] for row in rows.tolist()]
    return (names, *(tensor[rows].numpy().tobytes() for tensor in tensors))


# What a verdict depends on.


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_verdicts_do_not_depend_on_batch_size_order_or_neighbours(threat):
    """Bit for bit, adversarial images and passes included."""
    network, pixels, labels = problem(100)
    whole = autoattack(network, pixels, labels, threat, square_queries=30)
    assert {"clean", "apgd-ce", None} <= set(whole.fooled_by)
    for batch_size in (1, 7, 64, 100):
        again = autoattack(network, pixels, labels, threat, batch_size=batch_size, square_queries=30)
        assert verdicts(again) == verdicts(whole)
    order = torch.randperm(100, generator=generator(1))
    permuted = autoattack(network, pixels[order], labels[order], threat, batch_size=64, square_queries=30)
    assert verdicts(permuted) == verdicts(whole, order)
    for rows in (order[:1], order[:40]):
        fewer = autoattack(network, pixels[rows], labels[rows], threat, square_queries=30)
        assert verdicts(fewer) == verdicts(whole, rows)


def test_verdicts_depend_on_the_seed_and_on_nothing_global():
    """The same seed gives the same bits, whatever torch's generator does; another one other points."""
    network, pixels, labels = problem(40)
    first = autoattack(network, pixels, labels, THREATS[0], seed=3, **QUICK)
    torch.rand(5)
    before = torch.get_rng_state()
    assert verdicts(autoattack(network, pixels, labels, THREATS[0], seed=3, **QUICK)) == verdicts(first)
    assert torch.equal(torch.get_rng_state(), before)
    other = autoattack(network, pixels, labels, THREATS[0], seed=4, **QUICK)
    assert not torch.equal(other.adversarial, first.adversarial)


def test_nothing_of_the_callers_is_touched():
    """Modes part by part, requires_grad, .grad, arguments; and a module is attacked in eval mode whatever its mode."""
    network, pixels, labels = problem(30)
    network = nn.Sequential(network, nn.Dropout(0.5), nn.BatchNorm1d(4)).eval()
    expected = autoattack(network, pixels, labels, THREATS[0], **QUICK)
    network[1].train()
    network[0][2].weight.requires_grad_(False)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    copies = pixels.clone(), labels.clone()
    assert verdicts(autoattack(network, pixels, labels, THREATS[0], **QUICK)) == verdicts(expected)
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


def test_it_works_where_gradients_are_switched_off():
    """Under no_grad and under inference_mode, also on tensors made there."""
    network, pixels, labels = problem(20)
    expected = autoattack(network, pixels, labels, THREATS[0], **QUICK)
    with torch.no_grad():
        assert verdicts(autoattack(network, pixels, labels, THREATS[0], **QUICK)) == verdicts(expected)
    with torch.inference_mode():
        made_here = pixels.clone(), labels.clone()
        inside = autoattack(network, *made_here, THREATS[0], **QUICK)
    assert verdicts(inside) == verdicts(expected)


# What a verdict means.


@settings(max_examples=6)
@given(st.sampled_from([(1, 5, 5), (3, 4, 7), (1, 1, 1), (2, 2, 9)]), st.integers(2, 5), st.sampled_from(THREATS))
def test_every_success_can_be_confirmed(shape, classes, threat):
    """By another pass, in another batch, with other company, inside ball and pixel range; the rest is the image."""
    network, pixels, labels = problem(40, shape, classes=classes)
    result = autoattack(network, pixels, labels, threat, **QUICK)
    broken = result.clean & ~result.robust
    found = result.adversarial
    assert found.dtype == torch.float32 and (found >= 0).all() and (found <= 1).all()
    assert (threat.distance(found, pixels) <= float(threat.eps) * (1 + 1e-6)).all()
    assert torch.equal(found[~broken], pixels[~broken])
    assert torch.equal(result.clean, ~fooled(network(pixels), labels))
    if broken.any():
        assert fooled(network(found[broken]), labels[broken]).all()
    for name, robust, clean in zip(result.fooled_by, result.robust, result.clean, strict=True):
        assert (name is None) == bool(robust) and (name == "clean") == (not clean)
        assert name in {None, "clean", "apgd-ce", "square"}


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_on_linear_models_verdicts_are_the_exact_ones(norm):
    """With two classes, robust means an exact distance above eps; with more, none nearer is called broken."""
    numbers = generator(0)
    for classes in (2, 5):
        pixels = torch.rand(60, 1, 5, 4, generator=numbers)
        network = linear_net(torch.randn(classes, 20, generator=numbers), torch.randn(classes, generator=numbers))
        labels = network(pixels).argmax(1)
        exact = exact_distances(network[1].weight.detach(), network[1].bias.detach(), pixels, labels, norm)
        eps = exact.median().item()
        clear = ((exact - eps).abs() > 0.01 * eps) if norm == "l2" else ((exact - eps).abs() > 1e-4 * eps)
        result = autoattack(network, pixels, labels, Threat(norm, eps), **QUICK)
        assert not (exact[~result.robust] > eps).any()
        if classes == 2:
            assert torch.equal(result.robust[clear], (exact > eps)[clear])
        assert result.flags == ()


def test_each_attack_sees_only_survivors():
    """So the survivors of more attacks are a subset, and what is broken already costs no further pass."""
    network, pixels, labels = problem(80)
    threat = THREATS[0]
    gradient = autoattack(network, pixels, labels, threat, attacks=["apgd-ce"])
    both = autoattack(network, pixels, labels, threat, square_queries=300)
    assert (gradient.robust | ~both.robust).all()
    gone = ~gradient.robust
    assert torch.equal(both.passes.forward[gone], gradient.passes.forward[gone])
    assert torch.equal(both.passes.backward, gradient.passes.backward)
    assert (both.passes.forward[gradient.robust] > gradient.passes.forward[gradient.robust]).all()
    alone = autoattack(network, pixels, labels, threat, attacks=["square"], square_queries=300)
    assert set(alone.fooled_by) == {"clean", "square", None} and not alone.passes.backward.any()


def test_passes_are_what_the_network_was_asked(monkeypatch):
    """Counted at the network itself, with tiles of one image: one clean pass, the attacks', one to confirm."""
    monkeypatch.setattr(tiles, "_TILE", 1)
    network, pixels, labels = problem(8)
    forward, backward = [], []
    network[0].register_forward_hook(lambda *call: forward.append(len(call[2])))
    network[0].register_full_backward_hook(lambda *call: backward.append(len(call[2][0])))
    result = autoattack(network, pixels, labels, THREATS[0], square_queries=40)
    assert result.passes.forward.sum() == sum(forward) and result.passes.backward.sum() == sum(backward)
    wrong = ~result.clean
    assert (result.passes.forward[wrong] == 1).all() and (result.passes.backward[wrong] == 0).all()
    assert (result.passes.backward[result.robust] == 101).all()
    assert (result.passes.forward[result.robust] <= 1 + 101 + 40).all()


def test_a_larger_radius_breaks_everything_in_the_end():
    """At a radius that holds every image nothing is robust: otherwise gradients would lead nowhere."""
    network, pixels, labels = problem(40)
    for threat in (Threat("linf", 1.0), Threat("l2", 6.0)):
        assert autoattack(network, pixels, labels, threat, square_queries=200).robust.sum() <= 1
    nothing = autoattack(network, pixels, labels, Threat("linf", 0.0), **QUICK)
    assert torch.equal(nothing.robust, nothing.clean)
