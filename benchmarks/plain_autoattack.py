"""The original's standard cascade, written plainly: a yardstick for the library's own, for Linf and L2.

It does what the published code does and spares nothing: 101 passes for every image of a run, broken or not; batches
of the survivors, which share noise and windows; the network as it is. Nothing here comes from `generalist.attacks`.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.plain_gradients import TARGETS, Cost, Counted, apgd, cross_entropy, fab, start, targeted_dlr
from benchmarks.plain_square import search

ATTACKS = ("apgd-ce", "apgd-t", "fab-t", "square")
QUERIES = 5000


@dataclass
class Verdicts:
    """Which images are robust after each attack, `clean` first, and what each cost."""

    robust: dict[str, Tensor]
    costs: dict[str, Cost]

    @property
    def total(self) -> Cost:
        """All attacks together."""
        costs = self.costs.values()
        return Cost(sum(c.forward for c in costs), sum(c.backward for c in costs), sum(c.seconds for c in costs))


def plain_autoattack(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    norm: str,
    eps: float,
    *,
    seed: int = 0,
    batch_size: int = 200,
    attacks: Sequence[str] = ATTACKS,
    queries: int = QUERIES,
    clock: Callable[[], float] = time.process_time,
) -> Verdicts:
    """Return the verdicts of the cascade on images in [0, 1], for `norm` linf or l2."""
    counted = Counted(network)
    began = clock()
    wrong = [counted.wrong(images[rows], labels[rows]) for rows in torch.arange(len(images)).split(batch_size)]
    robust = ~torch.cat(wrong)
    counted.cost.seconds = clock() - began
    verdicts = Verdicts({"clean": robust.clone()}, {"clean": counted.cost})
    for attack in attacks:
        counted.cost = verdicts.costs[attack] = Cost()
        began = clock()
        for rows in robust.nonzero().squeeze(1).split(batch_size):
            if len(rows):
                generator = torch.Generator(images.device).manual_seed(seed)
                points = _attacked(attack, counted, images[rows], labels[rows], norm, eps, generator, queries)
                robust[rows] = ~counted.wrong(points, labels[rows])
        counted.cost.seconds = clock() - began
        verdicts.robust[attack] = robust.clone()
    return verdicts


def _attacked(
    attack: str, network: Counted, x: Tensor, y: Tensor, norm: str, eps: float, generator: torch.Generator, queries: int
) -> Tensor:
    """Return points of which as many as possible are misclassified."""
    if attack == "square":
        return search(network, x, y, norm, eps, generator, queries)
    if attack == "apgd-ce":
        points, broken = apgd(network, x, y, cross_entropy, norm, eps, start(x, norm, eps, generator))
        return torch.where(broken.view(-1, 1, 1, 1), points, x)
    found, left = x.clone(), torch.arange(len(x), device=x.device)
    for rank in range(2, TARGETS + 2):
        own, label = x[left], y[left]
        with torch.no_grad():
            target = network(own).argsort(1)[:, -rank]
        if attack == "fab-t":
            points, broken = fab(network, own, label, target, norm, eps)
        else:
            points, broken = apgd(
                network, own, label, targeted_dlr(target), norm, eps, start(own, norm, eps, generator)
            )
        found[left[broken]] = points[broken]
        left = left[~broken]
        if not len(left):
            break
    return found
