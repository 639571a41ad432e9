"""Views: whatever a search goes through, an image is broken by the decision alone."""

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from generalist.attacks import AutoAttackResult, autoattack, margin, misclassified
from generalist.attacks.members import member_names
from generalist.models import Classifier, Head
from generalist.tensors import ImageShape
from generalist.threats import Threat
from tests.strategies import conv_net, problem

THREAT = Threat("linf", 0.06)
NETWORK, IMAGES, _ = problem(24)
LABELS = NETWORK(IMAGES).argmax(1)


pytestmark = pytest.mark.usefixtures("short_gradients")


@functools.cache
def of_the_network() -> AutoAttackResult:
    """Return the verdicts on the network itself."""
    return autoattack(NETWORK, IMAGES, LABELS, THREAT)


def quantised(images: Tensor) -> Tensor:
    """Decide on rounded input: gradients are zero."""
    return NETWORK((images * 64).round() / 64)


def voted(images: Tensor) -> Tensor:
    """Decide without slopes: one vote for the likeliest class."""
    return nn.functional.one_hot(NETWORK(images).argmax(1), 4).float()


def saturated(images: Tensor) -> Tensor:
    """Decide by a function that is flat in float32 nearly everywhere."""
    return torch.sigmoid(1e4 * (NETWORK(images) - NETWORK(images).amax(1, keepdim=True))) + 0 * images.sum()


# Of an ensemble or a modified defence: views by name.


@pytest.mark.parametrize("decision", [quantised, voted, saturated])
def test_a_view_with_slopes_breaks_what_the_decision_hides(decision):
    """Robust accuracy falls to about that of the network behind, and not below what the decision says."""
    hidden = autoattack(decision, IMAGES, LABELS, THREAT)
    shown = autoattack(decision, IMAGES, LABELS, THREAT, views={"smooth": NETWORK})
    behind = of_the_network()
    assert hidden.robust.sum() >= shown.robust.sum() + 6
    assert (shown.robust != behind.robust).sum() <= 3
    broken = shown.clean & ~shown.robust
    assert misclassified(decision(shown.adversarial[broken]), LABELS[broken]).all()
    assert_close(shown.margins, margin(decision(shown.adversarial), LABELS))
    assert set(shown.fooled_by) <= {"apgd-ce", "apgd-t", "fab-t", "clean", None}


@pytest.mark.parametrize("members", [[name] for name in member_names() if name not in {"fab", "square"}], ids=str)
def test_each_gradient_member_goes_through_views(members):
    """By its own name; untargeted FAB, a part of `plus` alone, takes the decision's slopes."""
    hidden = autoattack(voted, IMAGES, LABELS, THREAT, attacks=members)
    shown = autoattack(voted, IMAGES, LABELS, THREAT, attacks=members, views={"smooth": NETWORK})
    assert shown.robust.sum() + 6 <= hidden.robust.sum()
    assert set(shown.fooled_by) == {*members, None}


def test_a_view_that_is_fooled_alone_breaks_nothing():
    """Views that are always wrong, and wrong under attack: verdicts are those of the decision, and none is doubted."""
    firm = 8 * nn.functional.one_hot(LABELS, 4).float()

    def decision(images: Tensor) -> Tensor:
        kept = (images[:, None] - IMAGES).flatten(2).abs().amax(2).argmin(1)
        return firm[kept] + 1e-3 * NETWORK(images)

    views = {"wrong": lambda images: -NETWORK(images), "weak": NETWORK}
    result = autoattack(decision, IMAGES, LABELS, THREAT, views=views)
    assert not of_the_network().robust.all()
    assert result.robust.all() and torch.equal(result.adversarial, IMAGES)
    assert result.flag_counts["unconfirmed successes"] == 0


def test_views_take_nothing_from_the_decision_s_own_search():
    """More views, fewer robust images: what broke before breaks again, by the same member at the same point."""
    alone = autoattack(NETWORK, IMAGES, LABELS, THREAT, attacks=["apgd-ce"])
    views = {"wrong": lambda images: -NETWORK(images), "other": conv_net((1, 6, 6), seed=3)}
    more = autoattack(NETWORK, IMAGES, LABELS, THREAT, attacks=["apgd-ce"], views=views)
    assert (alone.robust | ~more.robust).all()
    assert torch.equal(more.adversarial[~alone.robust], alone.adversarial[~alone.robust])


class Voted(Head):
    """Twice the classes, folded by a vote without slopes; the larger of both halves is a view with slopes."""

    def decision(self, raw: Tensor) -> Tensor:
        return nn.functional.one_hot(raw.argmax(1) % 4, 4).float()

    def views(self) -> dict[str, Any]:
        return {**super().views(), "largest": lambda raw: torch.maximum(raw[:, :4], raw[:, 4:])}


class Folding(Classifier):
    """Of eight outputs."""

    def __init__(self) -> None:
        super().__init__(ImageShape(1, 6, 6, 4, mean=(0.0,), std=(1.0,)), Voted(4))
        self.network = conv_net((1, 6, 6), classes=8, seed=2)

    def embed(self, normalised: Tensor) -> Tensor:
        return self.network(normalised)

    def raw_outputs(self, features: Tensor) -> Tensor:
        return features


def test_a_classifier_brings_its_views():
    """Verdicts are by its decision, in four classes of eight outputs; a view of the caller's joins them."""
    model = Folding().eval()
    labels = model.decision(model(IMAGES)).argmax(1)
    result = autoattack(model, IMAGES, labels, THREAT)
    broken = ~result.robust
    assert result.clean.all() and broken.sum() > 5
    assert misclassified(model.decision(model(result.adversarial[broken])), labels[broken]).all()
    view = model.views().pop("largest")
    same = autoattack(lambda images: model.decision(model(images)), IMAGES, labels, THREAT, views={"largest": view})
    assert torch.equal(result.adversarial, same.adversarial) and result.fooled_by == same.fooled_by
    more = autoattack(model, IMAGES, labels, THREAT, views={"mine": NETWORK})
    assert (result.robust | ~more.robust).all()


def test_a_classifier_searched_in_bfloat16_is_judged_by_its_decision():
    """Raw outputs are folded after the search's passes as well."""
    model = Folding().eval()
    labels = model.decision(model(IMAGES)).argmax(1)
    result = autoattack(model, IMAGES, labels, THREAT, precision="bfloat16")
    assert not result.robust.all()
    assert misclassified(model.decision(model(result.adversarial[~result.robust])), labels[~result.robust]).all()


# Logits of another scale.


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_scale_of_logits_decides_nothing(scale):
    """Within three images of the same network."""
    scaled = autoattack(lambda images: scale * NETWORK(images), IMAGES, LABELS, THREAT)
    assert abs(int(of_the_network().robust.sum()) - int(scaled.robust.sum())) <= 3


def test_large_logits_are_no_refuge_from_a_single_attack():
    """Their cross-entropy is flat, their scaled one is not."""
    large = autoattack(lambda images: 1e3 * NETWORK(images), IMAGES, LABELS, THREAT, attacks=["apgd-ce"])
    small = autoattack(NETWORK, IMAGES, LABELS, THREAT, attacks=["apgd-ce"])
    assert abs(int(large.robust.sum()) - int(small.robust.sum())) <= 3
