"""Searches through a view that differs by rounding: BatchNorm folded, or bfloat16; verdicts are float32 always."""

import inspect

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from generalist.attacks import autoattack, fooled, handover, margin
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
    assert fooled(rough(images.bfloat16()).float(), labels).sum() > 5
    result = autoattack(NETWORK, images, labels, Threat("linf", 0.0), precision="bfloat16")
    assert result.robust.all() and result.doubts["unconfirmed successes"] == 0


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_searches_in_bfloat16_are_confirmed_in_float32(norm):
    """And find about as much; the model stays float32."""
    threat = Threat(norm, {"linf": 0.06, "l2": 0.3, "l1": 1.5}[norm])
    fine = autoattack(NETWORK, IMAGES, LABELS, threat)
    rough = autoattack(NETWORK, IMAGES, LABELS, threat, precision="bfloat16")
    assert not torch.equal(rough.adversarial, fine.adversarial)
    assert (rough.robust != fine.robust).sum() <= 3
    assert rough.adversarial.dtype == rough.margins.dtype == torch.float32
    assert fooled(NETWORK(rough.adversarial[~rough.robust]), LABELS[~rough.robust]).all()
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
        (NETWORK, "float16", "there is no precision 'float16' of searches; use one of float32, bfloat16"),
        (lambda images: NETWORK(images), "bfloat16", "searches in bfloat16 need a torch.nn.Module"),
    ],
)
def test_other_precisions_are_refused(model, precision, reason):
    """By what can be done instead."""
    unchecked = inspect.unwrap(handover.faster)
    with pytest.raises(BadInput, match=reason):
        unchecked(model, model, precision, IMAGES, NETWORK(IMAGES))


# BatchNorm folded into the convolutions before it.


def normalised_net() -> nn.Sequential:
    """Convolutions with BatchNorm after each, far from the identity."""
    numbers = generator(1)
    parts: list[nn.Module] = []
    for channels in (1, 8):
        norm = nn.BatchNorm2d(8)
        for tensor in (norm.weight.data, norm.bias.data, norm.running_mean):
            tensor.normal_(generator=numbers)
        norm.running_var.uniform_(0.1, 2, generator=numbers)
        parts += [nn.Conv2d(channels, 8, kernel_size=3, padding=1), norm, nn.ReLU()]
    network = nn.Sequential(*parts, nn.Flatten(), nn.Linear(288, 4)).eval()
    for layer in network:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.weight.data.normal_(generator=numbers).mul_(0.1)
            layer.bias.data.normal_(generator=numbers)
    network[-1].bias.data -= network(torch.rand(200, 1, 6, 6, generator=numbers)).mean(0).detach()
    return network


class Forked(nn.Module):
    """Goes another way for bright batches, which no tracing can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.network = normalised_net()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images) if images.sum() > 0 else self.network(-images)


@pytest.mark.parametrize("network", [NETWORK, Forked().eval()], ids=["nothing to fold", "can't be recorded"])
def test_what_cannot_be_folded_is_attacked_as_it_is(network):
    """Its decision is its only view."""
    assert handover.faster(network, network, "float32", IMAGES, network(IMAGES).detach()).view is None
    assert len(autoattack(network, IMAGES[:3], LABELS[:3], THREAT, attacks=["apgd-ce"]).robust) == 3


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_verdicts_of_a_folded_network_are_the_network_s_own(precision):
    """To the last bit of the logits, though searches go through another function."""
    network = normalised_net()
    labels = network(IMAGES).argmax(1)
    threat = Threat("linf", 0.03)
    plain = autoattack(lambda images: network(images), IMAGES, labels, threat)
    result = autoattack(network, IMAGES, labels, threat, precision=precision)
    assert 5 < result.robust.sum() < 20 and (result.robust != plain.robust).sum() <= 2
    assert_close(result.margins, margin(network(result.adversarial), labels).detach(), atol=1e-5, rtol=1e-5)
    broken = ~result.robust
    assert fooled(network(result.adversarial[broken]), labels[broken]).all()
