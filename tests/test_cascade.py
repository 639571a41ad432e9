"""The cascade: verdicts that depend on nothing but the image, and that somebody else can confirm."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from generalist.attacks import autoattack, cascade, fooled, tiles
from generalist.attacks.cascade import Attempt, Cascade
from generalist.errors import BadInput
from generalist.threats import Threat
from tests import aa_reference
from tests.strategies import conv_net, exact_distances, generator, linear_net

THREATS = [Threat("linf", 0.06), Threat("l2", 0.3)]
QUICK = {"square_queries": 60}


def problem(count: int, shape: tuple[int, int, int] = (1, 6, 6), *, classes: int = 4, seed: int = 0):
    """A network, images, and labels of which one in ten is wrong."""
    network = conv_net(shape, classes=classes, seed=seed)
    pixels = torch.rand(count, *shape, generator=generator(seed))
    labels = network(pixels).argmax(1)
    labels[::10] = (labels[::10] + 1) % classes
    return network, pixels, labels


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
    network[0].register_forward_hook(lambda module, inputs, output: forward.append(len(output)))
    network[0].register_full_backward_hook(lambda module, inputs, outputs: backward.append(len(outputs[0])))
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


@pytest.mark.parametrize("cheat", [lambda x: x + 0.11, lambda x: x + 0.02 + (x > 0.99)], ids=["ball", "range"])
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
    undecided = autoattack(lambda x: torch.zeros(len(x), 3), pixels, torch.zeros(20).long(), THREATS[0])
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
    assert (
        autoattack(lambda x: constant.expand(len(x), 2), pixels, torch.zeros(3).long(), THREATS[0], **QUICK).flags == ()
    )
    more = torch.rand(4, 1, 3, 3, generator=generator(0))
    blind = autoattack(lambda x: constant.expand(len(x), 2), more, torch.zeros(4).long(), THREATS[0], **QUICK)
    assert blind.flags == ("zero gradients",) and blind.robust.all()


def test_an_honest_network_raises_no_flag():
    """Otherwise flags would mean nothing."""
    network, pixels, labels = problem(100)
    assert autoattack(network, pixels, labels, THREATS[0], square_queries=200).flags == ()


# Any number of images, and what is refused.


@pytest.mark.parametrize("count", [0, 1])
def test_any_number_of_images(count):
    """None at all, one survivor, one that is classified wrongly."""
    network, pixels, labels = problem(3)
    for first in (0, 1):  # of the three the first is classified wrongly
        rows = slice(first, first + count)
        result = autoattack(network, pixels[rows], labels[rows], THREATS[0], **QUICK)
        assert len(result.robust) == len(result.clean) == len(result.fooled_by) == len(result.adversarial) == count
        assert result.flags == () and (count == 0 or bool(result.clean[0]) == (first == 1))


def test_all_wrong_and_all_broken():
    """When nobody is left the cascade ends."""
    network, pixels, labels = problem(12)
    wrong = autoattack(network, pixels, (network(pixels).argmax(1) + 1) % 4, THREATS[0])
    assert not wrong.clean.any() and wrong.passes.forward.sum() == 12
    broken = autoattack(network, pixels, network(pixels).argmax(1), Threat("linf", 0.9))
    assert broken.clean.all() and not broken.robust.any() and "square" not in broken.fooled_by


def asks(**changed):
    network, pixels, labels = problem(10)
    return {"model": network, "images": pixels, "labels": labels, "threat": THREATS[0]} | changed


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


# Against the original.


def reference_runs(attack: str) -> list[tuple[str, Threat, int, torch.Tensor]]:
    """Where the original ran this attack on all correct images: network, threat, seed, and what it broke."""
    runs = []
    for name in ("linear_nat", "plain_nat", "plain_at", "bn_at"):
        for run in json.loads((aa_reference.folder() / f"{name}.json").read_text(encoding="utf-8")).values():
            alone = run.get("individual") or {"apgd-ce": run["cumulative"]["apgd-ce"]}  # the first of the cascade
            if run["norm"] != "L1" and run["version"] == "standard" and run["bs"] == 200 and attack in alone:
                threat = Threat(run["norm"].lower(), run["eps"])
                runs.append((name, threat, run["seed"], aa_reference.broken(alone[attack]["robust_flags"])))
    return runs


@pytest.mark.parametrize(("attack", "count"), [("apgd-ce", 200), ("square", 100)])
def test_each_attack_alone_is_as_strong_as_the_original(attack, count):
    """Image by image, as McNemar would test it, one-sided: in each configuration and over all of them.

    The original's own seeds differ on up to 11 of 200 images after APGD-CE.
    """
    pixels, labels = (tensor[:count] for tensor in aa_reference.data())
    counts = []  # for each run, the images that only the original broke, and those that only ours did
    for name, threat, seed, flags in reference_runs(attack):
        network, theirs = aa_reference.network(name), flags[:count]
        ours = ~autoattack(network, pixels, labels, threat, attacks=[attack], seed=seed).robust
        counts.append((int((theirs & ~ours).sum()), int((ours & ~theirs).sum())))
    for theirs, ours in [*counts, tuple(map(sum, zip(*counts, strict=True)))]:
        assert theirs <= ours + 2 * (theirs + ours) ** 0.5 + 1
