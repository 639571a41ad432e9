"""A larger radius breaks no fewer images, and more attacks break no fewer."""

from itertools import pairwise

import pytest
import torch

from generalist.attacks import autoattack, fixed_batches
from generalist.threats import Threat
from tests.exact_linear import NORMS
from tests.strategies import problem

pytestmark = pytest.mark.long

RADII = {"linf": [0.02, 0.05, 0.1], "l2": [0.1, 0.25, 0.5], "l1": [0.2, 0.6, 1.6]}


@pytest.mark.parametrize("norm", NORMS)
def test_what_a_radius_breaks_a_larger_one_breaks(norm, monkeypatch):
    """Though the runs are independent of each other."""
    monkeypatch.setattr(fixed_batches, "_TILE", 30)
    network, images, labels = problem(30, (1, 5, 5), classes=5)
    robust = [autoattack(network, images, labels, Threat(norm, eps), attacks=["apgd-t"]).robust for eps in RADII[norm]]
    assert all((smaller | ~larger).all() for smaller, larger in pairwise(robust))
    counts = [int(row.sum()) for row in robust]
    assert len(set(counts)) == 3, "the radii must differ in what they break"


def test_each_further_attack_leaves_some_of_what_was_left(monkeypatch):
    """Image by image, from the first attack to the standard version."""
    monkeypatch.setattr(fixed_batches, "_TILE", 16)
    network, images, labels = problem(16, (1, 5, 5), classes=5)
    threat, left = Threat("linf", 0.04), torch.ones(16, dtype=torch.bool)
    for names in (["apgd-ce"], None):
        robust = autoattack(network, images, labels, threat, attacks=names, square_queries=20).robust
        assert not (robust & ~left).any()
        left = robust
    assert left.any()
