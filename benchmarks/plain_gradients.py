"""APGD and FAB of the plain cascade, for Linf and L2, and the network that counts its passes."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

STEPS, TARGETS = 100, 9
CHECKS = {21: 22, 40: 19, 56: 16, 69: 13, 79: 10, 86: 7, 92: 6, 98: 6}  # step: window, for 100 steps

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Cost:
    """What one attack cost in all: passes counted once for each image, and seconds."""

    forward: int = 0
    backward: int = 0
    seconds: float = 0.0


class Counted:
    """A network that counts what it is asked; `full_gradients` makes those of the parameters in each backward pass."""

    full_gradients = True

    def __init__(self, network: nn.Module) -> None:
        self.network, self.cost = network, Cost()

    def __call__(self, points: Tensor) -> Tensor:
        """Return the logits."""
        self.cost.forward += len(points)
        logits: Tensor = self.network(points)
        return logits

    @torch.no_grad()
    def wrong(self, points: Tensor, labels: Tensor) -> Tensor:
        """Return where another class than the label is likeliest."""
        return self(points).argmax(1) != labels

    def slope(self, points: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, losses and the gradient of their sum by the points."""
        points = points.detach().requires_grad_()
        logits = self(points)
        losses = loss(logits)
        if self.full_gradients:
            losses.sum().backward()
            self.network.zero_grad()
            assert points.grad is not None
            gradient = points.grad
        else:
            (gradient,) = torch.autograd.grad(losses.sum(), [points])
        self.cost.backward += len(points)
        return logits.detach(), losses.detach(), gradient

    def wasteful_slope(self, points: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Return losses and gradient; the parameters' are made and thrown away, as FAB's published code does."""
        points = points.detach().requires_grad_()
        losses = loss(self(points))
        losses.sum().backward()
        self.network.zero_grad()
        self.cost.backward += len(points)
        assert points.grad is not None
        return losses.detach(), points.grad


def cross_entropy(z: Tensor, y: Tensor) -> Tensor:
    """Return -log softmax of the label."""
    return nn.functional.cross_entropy(z, y, reduction="none")


def targeted_dlr(target: Tensor) -> Loss:
    """Return -(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2)."""

    def loss(z: Tensor, y: Tensor) -> Tensor:
        best = z.sort(1).values
        difference = z.gather(1, y[:, None]) - z.gather(1, target[:, None])
        return -difference.squeeze(1) / (best[:, -1] - (best[:, -3] + best[:, -4]) / 2 + 1e-12)

    return loss


def length(offsets: Tensor, norm: str) -> Tensor:
    """Return the norms [batch, 1, 1, 1]."""
    flat = offsets.flatten(1)
    lengths = flat.abs().amax(1) if norm == "linf" else flat.square().sum(1).sqrt()
    return lengths.view(-1, 1, 1, 1)


def start(x: Tensor, norm: str, eps: float, generator: torch.Generator) -> Tensor:
    """Return a random point at distance eps, before it is clipped."""
    if norm == "linf":
        offsets = 2 * torch.rand(x.shape, generator=generator, device=x.device) - 1
    else:
        offsets = torch.randn(x.shape, generator=generator, device=x.device)
    return (x + eps * offsets / (length(offsets, norm) + 1e-12)).clamp(0, 1)


def project(points: Tensor, x: Tensor, norm: str, eps: float) -> Tensor:
    """Project into the ball, then into the box."""
    if norm == "linf":
        return torch.min(torch.max(points, x - eps), x + eps).clamp(0, 1)
    offsets = points - x
    distance = length(offsets, norm)
    return (x + offsets / (distance + 1e-12) * distance.clamp(max=eps)).clamp(0, 1)


def apgd(
    network: Counted, x: Tensor, y: Tensor, loss: Loss, norm: str, eps: float, begin: Tensor, steps: int = STEPS
) -> tuple[Tensor, Tensor]:
    """Run once: return for each image the last misclassified point, and whether there was one."""
    here = before = begin
    logits, losses, gradient = network.slope(here, lambda z: loss(z, y))
    broken, found = logits.argmax(1) != y, here.clone()
    best, best_gradient, best_loss = here.clone(), gradient.clone(), losses.clone()
    checked_loss, halved = best_loss.clone(), torch.ones_like(broken)
    history = torch.zeros(steps, len(x), device=x.device)
    size = torch.full_like(x[:, :1, :1, :1], 2 * eps)
    for step in range(steps):
        direction = gradient.sign() if norm == "linf" else gradient / (length(gradient, norm) + 1e-12)
        ahead = project(here + size * direction, x, norm, eps)
        share = 0.75 if step else 1.0
        here, before = project(here + share * (ahead - here) + (1 - share) * (here - before), x, norm, eps), here
        logits, losses, gradient = network.slope(here, lambda z: loss(z, y))
        now = logits.argmax(1) != y
        broken |= now
        found[now] = here[now]
        higher = losses > best_loss
        best[higher], best_gradient[higher], best_loss[higher] = here[higher], gradient[higher], losses[higher]
        history[step] = losses
        if step in CHECKS:
            window = torch.arange(step - CHECKS[step] + 1, step + 1)
            rises = (history[window] > history[window - 1]).sum(0)  # before the first step lies the last row, zeros
            halve = (rises <= 0.75 * CHECKS[step]) | (~halved & (checked_loss >= best_loss))
            halved, checked_loss = halve, best_loss.clone()
            size[halve] /= 2
            here, gradient = here.clone(), gradient.clone()
            here[halve], gradient[halve] = best[halve], best_gradient[halve]
    return found, broken


def fab(
    network: Counted, x: Tensor, y: Tensor, target: Tensor, norm: str, eps: float, steps: int = STEPS
) -> tuple[Tensor, Tensor]:
    """Run towards one target: return each image's nearest misclassified point, and whether it lies within eps."""
    here, found, nearest = x.clone(), x.clone(), torch.full((len(x),), math.inf, device=x.device)

    def difference(z: Tensor) -> Tensor:
        return (z.gather(1, target[:, None]) - z.gather(1, y[:, None])).squeeze(1)

    for _ in range(steps):
        differences, normal = network.wasteful_slope(here, difference)
        both = torch.cat([here, x]).flatten(1)
        normals = torch.cat([normal, normal]).flatten(1)
        offsets = (normal * here).flatten(1).sum(1) - differences
        moves = to_plane(both, normals, torch.cat([offsets, offsets]), norm).view(2, *x.shape)
        lengths = [length(move, norm).clamp_min(1e-8) for move in moves]
        share = (lengths[0] / (lengths[0] + lengths[1])).clamp_max(0.1)
        here = ((here + 1.05 * moves[0]) * (1 - share) + (x + 1.05 * moves[1]) * share).clamp(0, 1)
        wrong = network.wrong(here, y)
        distance = length(here - x, norm).flatten()
        closer = wrong & (distance < nearest)
        found[closer], nearest[closer] = here[closer], distance[closer]
        here[wrong] = x[wrong] + 0.9 * (here - x)[wrong]
    return found, network.wrong(found, y) & (nearest <= eps)


def to_plane(points: Tensor, normals: Tensor, offsets: Tensor, norm: str) -> Tensor:
    """Return the smallest move, inside the box, onto normals · points = offsets; where that is too far, the nearest."""
    gap = offsets - (normals * points).sum(1)
    slopes = normals * gap.sign()[:, None]
    room = torch.where(slopes > 0, 1 - points, points)
    sizes = slopes.abs()
    # Pixels move together, at speed 1 (Linf) or |slope| (L2), each until its room is used up.
    speeds = torch.ones_like(sizes) if norm == "linf" else sizes
    stops, order = (room / speeds.clamp_min(1e-20)).sort(1)
    gains, used = (sizes * speeds).gather(1, order), (sizes * room).gather(1, order)
    moving = gains.flip(1).cumsum(1).flip(1)  # gain per time between the stop before and this one
    stopped = used.cumsum(1) - used
    reached = stopped + stops * moving  # the gap closed at each stop
    index = torch.searchsorted(reached, gap.abs()[:, None].contiguous()).clamp_max(reached.shape[1] - 1)
    times = (gap.abs()[:, None] - stopped.gather(1, index)) / moving.gather(1, index).clamp_min(1e-20)
    times = torch.where(gap.abs()[:, None] > reached[:, -1:], stops[:, -1:], times)
    return slopes.sign() * torch.minimum(times.clamp_min(0) * speeds, room)
