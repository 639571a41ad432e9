"""Searches through a view that differs by rounding, as in bfloat16; verdicts are float32 always."""

import inspect

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from generalist.attacks import autoattack, margin, misclassified, model_adapter
from generalist.errors import BadInput
from generalist.threats import Threat
from tests.strategies import conv_net, generator, problem

THREAT = Threat("linf", 0.06)
NETWORK, IMAGES, _ = problem(24)
LABELS = NETWORK(IMAGES).argmax(1)


pytestmark = pytest.mark.usefixtures("short_gradients")


# Searches in bfloat16.


def undecided(count: int) -> tuple[Tensor, Tensor]:
    """Images so near to a boundary that bfloat16 can't tell the classes apart, and their classes in float32."""
    ends = torch.rand(2, count, 1, 6, 6, generator=generator(5))
    labels = NETWORK(ends[0]).argmax(1)
    low, high = torch.zeros(count, 1, 1, 1), torch.ones(count, 1, 1, 1)
    for _ in range(12):
        middle = (low + high) / 2
        same = (NETWORK(ends[0] + middle * (ends[1] - ends[0])).argmax(1) == labels).view(-1, 1, 1, 1)
        low, high = torch.where(same, middle, low), torch.where(same, high, middle)
    images = ends[0] + low * (ends[1] - ends[0])
    return images, NETWORK(images).argmax(1)


def test_nothing_is_broken_in_bfloat16_alone():
    """Where there is no radius, the clean verdicts stay, whatever bfloat16 makes of the images."""
    images, labels = undecided(48)
    rough = conv_net((1, 6, 6)).bfloat16()
    assert misclassified(rough(images.bfloat16()).float(), labels).sum() > 5
    result = autoattack(NETWORK, images, labels, Threat("linf", 0.0), precision="bfloat16")
    assert result.robust.all() and result.flag_counts["unconfirmed successes"] == 0


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_searches_in_bfloat16_are_confirmed_in_float32(norm):
    """And find about as much; the model stays float32."""
    threat = Threat(norm, {"linf": 0.06, "l2": 0.3, "l1": 1.5}[norm])
    fine = autoattack(NETWORK, IMAGES, LABELS, threat)
    rough = autoattack(NETWORK, IMAGES, LABELS, threat, precision="bfloat16")
    assert not torch.equal(rough.adversarial, fine.adversarial)
    assert (rough.robust != fine.robust).sum() <= 3
    assert rough.adversarial.dtype == rough.margins.dtype == torch.float32
    assert misclassified(NETWORK(rough.adversarial[~rough.robust]), LABELS[~rough.robust]).all()
    assert_close(rough.margins, margin(NETWORK(rough.adversarial), LABELS).detach(), atol=1e-5, rtol=1e-5)
    assert (threat.distance(rough.adversarial, IMAGES) <= float(threat.eps) * (1 + 1e-6)).all()
    assert all(parameter.dtype == torch.float32 for parameter in NETWORK.parameters())


def test_where_bfloat16_computes_something_else_searches_stay_in_float32():
    """As a large constant swallows all that the logits say."""
    network = conv_net((1, 6, 6))
    network[-1].bias.data += 1e4
    fine = autoattack(network, IMAGES, LABELS, THREAT)
    rough = autoattack(network, IMAGES, LABELS, THREAT, precision="bfloat16")
    assert torch.equal(rough.adversarial, fine.adversarial) and not fine.robust.all()


@pytest.mark.parametrize(
    ("model", "precision", "reason"),
    [
        (NETWORK, "float16", "there is no precision 'float16' of searches; use one of float32, tf32, bfloat16"),
        (lambda images: NETWORK(images), "bfloat16", "searches in bfloat16 need a torch.nn.Module"),
    ],
)
def test_other_precisions_are_refused(model, precision, reason):
    """By what can be done instead."""
    unchecked = inspect.unwrap(model_adapter.with_fast_view)
    with pytest.raises(BadInput, match=reason):
        unchecked(model, model, precision, IMAGES, NETWORK(IMAGES))


def test_in_float32_the_decision_is_its_only_view() -> None:
    """And in TF32 on a CPU, which has none."""
    for precision in ("float32", "tf32"):
        target = model_adapter.with_fast_view(NETWORK, NETWORK, precision, IMAGES, NETWORK(IMAGES).detach())
        assert target.view is None and target.decision is NETWORK
