"""The training loop as it is commonly published, for comparison: nothing is saved that could be.

Written from its description: PGD by `loss.backward()`, which computes the gradients of all weights too; averages of
`state_dict()` entry by entry; and two forward passes of averaged networks that only feed a progress bar.
"""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class NaiveTraining:
    """One natural and one robust network, their averages, and the average of their mixture."""

    def __init__(
        self, network: nn.Module, *, eps: float, step_size: float, steps: int, optimizer: Mapping[str, float]
    ) -> None:
        """Start from copies of a network; `optimizer` has SGD's settings."""
        self.natural, self.robust = copy.deepcopy(network), copy.deepcopy(network)
        self.averages = [copy.deepcopy(network).eval() for _ in range(3)]
        self.optimizers = [torch.optim.SGD(own.parameters(), **optimizer) for own in (self.natural, self.robust)]
        self.eps, self.step_size, self.steps = eps, step_size, steps

    def step(self, images: Tensor, labels: Tensor) -> tuple[int, int]:
        """Take one step of both, and return what the progress bar shows."""
        self.train(0, images, labels)
        self.train(1, self.attacked(images, labels), labels)
        self.average()
        return self.shown(images, labels)

    def train(self, which: int, images: Tensor, labels: Tensor) -> None:
        """Make a training pass of one network: 0 is the natural, 1 the robust one."""
        network, optimizer = (self.natural, self.robust)[which], self.optimizers[which]
        network.train()
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()

    @torch.no_grad()
    def shown(self, images: Tensor, labels: Tensor) -> tuple[int, int]:
        """Return correct predictions of two averages, for the progress bar."""
        natural, robust = ((own(images).argmax(1) == labels).sum() for own in self.averages[:2])
        return int(natural), int(robust)

    def attacked(self, images: Tensor, labels: Tensor, steps: int | None = None) -> Tensor:
        """Attack by Linf PGD from a random start, in fewer steps where a number is given."""
        self.robust.eval()
        points = (images + torch.empty_like(images).uniform_(-self.eps, self.eps)).clamp(0, 1)
        for _ in range(steps or self.steps):
            points.requires_grad_()
            F.cross_entropy(self.robust(points), labels).backward()
            assert points.grad is not None
            moved = points.detach() + self.step_size * points.grad.sign()
            points = torch.min(torch.max(moved, images - self.eps), images + self.eps).clamp(0, 1)
        return points

    @torch.no_grad()
    def average(self, decay: float = 0.999, weight: float = 0.5) -> None:
        """Update the three averages, entry by entry."""
        for average, own in zip(self.averages, (self.natural, self.robust), strict=False):
            for name in average.state_dict():
                kept, new = average.state_dict()[name], own.state_dict()[name]
                kept.copy_(decay * kept + (1 - decay) * new if kept.is_floating_point() else new)
        mixed = self.averages[2].state_dict()
        for name, kept in mixed.items():
            both = [own.state_dict()[name] for own in (self.natural, self.robust)]
            new = weight * both[0] + (1 - weight) * both[1] if kept.is_floating_point() else both[0]
            kept.copy_(decay * kept + (1 - decay) * new if kept.is_floating_point() else new)
