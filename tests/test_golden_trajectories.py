"""Step by step the original AutoAttack's gradient attacks, in float64 and from its own starts."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from generalist.attacks import fixed_batches
from generalist.attacks.apgd import apgd
from generalist.attacks.fab import FabResult, _FabState, fab
from generalist.attacks.losses import cross_entropy, dlr, other_classes_by_logit, targeted_dlr
from generalist.threats import Threat
from tests import aa_reference
from tests.strategies import Recorder

NAMES = ["plain_at", "bn_at"]
NORMS = ["Linf", "L2", "L1"]
LOSSES = {"ce": cross_entropy, "dlr": dlr, "dlr-targeted": targeted_dlr}


def golden(name: str, prefix: str) -> dict[str, Tensor]:
    """Images, labels, starts and radii of a file, and what a run saw and found, without its prefix."""
    with np.load(aa_reference.folder() / f"golden_trajectories_{name}.npz") as arrays:
        keys = [key for key in arrays.files if key[0] in "xyL" or key.startswith(prefix)]
        return {key.removeprefix(prefix): torch.from_numpy(arrays[key]) for key in keys}


# Each norm with each loss; each network with each norm, and with each loss.
@pytest.mark.parametrize(
    ("name", "norm", "loss"),
    [(NAMES[(i + j) % 2], norm, loss) for i, norm in enumerate(NORMS) for j, loss in enumerate(LOSSES)],
)
def test_apgd_goes_the_way_of_the_original(name, norm, loss, monkeypatch):
    """All 101 points, the best one and the last success: to 1e-6.

    In L1 the original counts pixels that rounding alone has changed. So only the first ten steps are its own, and the
    loss is in the end as high, to 1e-2.
    """
    network = aa_reference.network(name).double()
    expected = golden(name, f"apgd_{norm}_{loss}_")
    pixels, labels = expected["x"], expected["y"]
    monkeypatch.setattr(fixed_batches, "_TILE", len(pixels))
    asked = Recorder(network, len(pixels))
    targets = other_classes_by_logit(network(pixels).detach(), labels)[:, 0] if loss == "dlr-targeted" else None
    threat = Threat(norm.lower(), expected[f"{norm}_eps"].item())
    start = expected[f"{norm}_x0"]
    run = apgd(asked, pixels, labels, threat, start=start, loss=LOSSES[loss], targets=targets, stop_when_broken=False)
    seen = torch.stack(asked.seen)
    assert len(seen) == 101
    every = 1 if len(expected["iterates"]) == 101 else 10
    if norm == "L1":
        first = expected["iterates"][: 10 // every + 1]
        assert_close(seen[:11:every], first, atol=1e-6, rtol=0)
        assert_close(run.best_loss, expected["loss_best"], atol=1e-2, rtol=0)
    else:
        assert_close(seen[::every], expected["iterates"], atol=1e-6, rtol=0)
        assert_close(run.best, expected["x_best"], atol=1e-6, rtol=0)
        assert_close(run.best_loss, expected["loss_best"], atol=1e-6, rtol=0)
        assert_close(run.adversarial, expected["x_best_adv"], atol=1e-6, rtol=0)
    assert torch.equal(~run.broken, expected["acc"])


def distinct(points: list[Tensor]) -> Iterator[Tensor]:
    """Without what repeats the point before: passes are shared between gradients and labels."""
    for before, point in zip([None, *points], points, strict=False):
        if before is None or not torch.equal(before, point):
            yield point


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", NAMES)
def test_fab_goes_the_way_of_the_original(name, norm, monkeypatch):
    """The points of its first 20 passes, and after 100 steps the nearest adversary: to 1e-6; polished, one nearer."""
    network = aa_reference.network(name).double()
    expected = golden(name, f"fab_{norm}_rank2_")
    pixels, labels = expected["x"], expected["y"]
    targets = other_classes_by_logit(network(pixels).detach(), labels)[:, 0]
    threat = Threat(norm.lower(), expected[f"{norm}_eps"].item())
    monkeypatch.setattr(fixed_batches, "_TILE", len(pixels))
    polish, unpolished = _FabState.polish, []

    def noted(search: _FabState) -> None:
        unpolished.append(FabResult(search.distance.isfinite(), search.adversarial.clone(), search.distance.clone()))
        polish(search)

    monkeypatch.setattr(_FabState, "polish", noted)
    polished = fab(network, pixels, labels, threat, targets=targets, within_eps=False)
    (result,) = unpolished
    assert_close(result.adversarial, expected["xadv"], atol=1e-6, rtol=0)
    distance = threat.distance(expected["xadv"], pixels)
    assert_close(result.distance[result.broken], distance[result.broken], atol=1e-6, rtol=0)
    assert (distance[~result.broken] == 0).all() and result.distance[~result.broken].isinf().all()
    assert (polished.distance <= result.distance + 1e-12).all()
    monkeypatch.setattr(fixed_batches, "_TILE", 1)
    for row in range(0, len(pixels), 4):  # alone, so that passes are in the original's order
        asked, one = Recorder(network, 1), slice(row, row + 1)
        fab(asked, pixels[one], labels[one], threat, targets=targets[one], steps=12, within_eps=False)
        theirs = list(distinct(list(expected["first20calls"][:, one])))
        ours = list(distinct(asked.seen))[: len(theirs)]
        assert_close(torch.stack(ours), torch.stack(theirs), atol=1e-6, rtol=0)
