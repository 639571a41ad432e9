"""What verdicts depend on: the image and the seed, bit for bit, and not its company."""

from typing import Any

import pytest
import torch

from generalist.attacks import autoattack, fixed_batches, merge
from generalist.threats import Threat
from tests.cascade_bits import everything
from tests.strategies import generator, problem

pytestmark = pytest.mark.long

THREATS = [Threat("linf", 0.06), Threat("l2", 0.3), Threat("l1", 1.0)]
THIRDS = [slice(0, 1), slice(1, 11), slice(11, 20)]


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few images at a time: all of them go into several passes, of which the last is not full."""
    monkeypatch.setattr(fixed_batches, "_TILE", 8)


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_verdicts_do_not_depend_on_batch_size_order_or_neighbours(threat, short):
    """Bit for bit, adversarial images and passes included, for every member; nor on shards."""
    network, pixels, labels = problem(20)
    whole = autoattack(network, pixels, labels, threat, **short)
    assert {"clean", "apgd-ce", None} <= set(whole.fooled_by)
    again = autoattack(network, pixels, labels, threat, batch_size=7, **short)
    assert everything(again) == everything(whole)
    order = torch.randperm(20, generator=generator(1))
    permuted = autoattack(network, pixels[order], labels[order], threat, batch_size=10, **short)
    assert everything(permuted) == everything(whole, order)
    shards = [autoattack(network, pixels[own], labels[own], threat, **short) for own in THIRDS]
    assert everything(merge(shards)) == everything(whole)
    assert merge(shards).flags == whole.flags
    alone = order[:1]
    lonely = autoattack(network, pixels[alone], labels[alone], threat, **short)
    assert everything(lonely)[:-1] == everything(whole, alone)[:-1]


def test_verdicts_depend_on_the_seed_and_on_nothing_global():
    """The same seed gives the same bits, whatever torch's generator does; another one other points."""
    two: dict[str, Any] = {"attacks": ["apgd-ce", "square"], "square_queries": 20}
    network, pixels, labels = problem(8)
    first = autoattack(network, pixels, labels, THREATS[0], seed=3, **two)
    torch.rand(5)
    before = torch.get_rng_state()
    assert everything(autoattack(network, pixels, labels, THREATS[0], seed=3, **two)) == everything(first)
    assert torch.equal(torch.get_rng_state(), before)
    other = autoattack(network, pixels, labels, THREATS[0], seed=4, **two)
    assert not torch.equal(other.adversarial, first.adversarial)
