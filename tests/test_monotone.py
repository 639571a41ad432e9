"""A larger radius breaks no fewer images, and more attacks break no fewer."""

from itertools import pairwise

import pytest
import torch

from generalist.attacks import autoattack, tiles
from generalist.threats import Threat
from tests.exact_linear import NORMS
from tests.strategies import problem

RADII = {"linf": [0.0, 0.02, 0.04, 0.06, 0.1], "l2": [0.0, 0.1, 0.2, 0.3, 0.5], "l1": [0.0, 0.2, 0.4, 0.8, 1.6]}


@pytest.mark.parametrize("norm", NORMS)
def test_what_a_radius_breaks_a_larger_one_breaks(norm, monkeypatch):
    """But for half a percent of pairs, as the runs are independent; at no radius the clean verdict stays."""
    monkeypatch.setattr(tiles, "_TILE", 30)
    network, images, labels = problem(30, (1, 4, 4), classes=3)
    robust = [autoattack(network, images, labels, Threat(norm, eps), attacks=["apgd-t"]).robust for eps in RADII[norm]]
    assert torch.equal(robust[0], network(images).argmax(1) == labels)
    counts = [row.sum().item() for row in robust]
    assert counts == sorted(counts, reverse=True) and counts[0] - counts[-1] > 15 and len(set(counts)) == 5
    violations = sum((~smaller & larger).sum().item() for smaller, larger in pairwise(robust))
    assert violations <= 0.005 * 30 * 4


def test_plus_leaves_none_that_standard_broke(monkeypatch):
    """And each member of the standard version leaves only some of those that the ones before it left."""
    monkeypatch.setattr(tiles, "_TILE", 8)
    network, images, labels = problem(8, (1, 4, 4), classes=3, seed=1)
    threat = Threat("linf", 0.04)
    before = torch.ones(8, dtype=torch.bool)
    for names in (["apgd-ce", "apgd-t"], None):
        result = autoattack(network, images, labels, threat, attacks=names, square_queries=20)
        assert not (result.robust & ~before).any()
        before = result.robust
    plus = autoattack(network, images, labels, threat, version="plus", square_queries=20)
    assert before.any() and not (plus.robust & ~before).any()
