"""Exact adversarial distances to small networks of one hidden ReLU layer in the pixel range, in float64.

Where the same units are on, such a network is linear. So the nearest adversary is the nearest point, over all
patterns of units and all other classes, of a polyhedron: by linear programming in Linf and L1, by Lawson and Hanson's
least distance programming in L2 (Solving Least Squares Problems, chapter 23).
"""

from itertools import product

import numpy as np
import torch
from scipy.optimize import linprog, nnls
from torch import Tensor, nn

from tests.exact_linear import halfspace_distances


def relu_net(pixels: int, *, hidden: int, classes: int, seed: int) -> nn.Sequential:
    """Return a random network whose units all switch near the middle of the pixel range; it prefers no class."""
    numbers = torch.Generator().manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, classes)).eval()
    for layer in (network[1], network[3]):
        layer.weight.data.normal_(generator=numbers)
        layer.bias.data.zero_()
    network[1].bias.data.normal_(generator=numbers).mul_(0.3).sub_(network[1].weight.data.sum(1) / 2)
    network[3].bias.data.sub_(network(torch.rand(1000, pixels, generator=numbers)).detach().mean(0))
    return network


def concave_net(pixels: int, *, hidden: int, classes: int, seed: int) -> nn.Sequential:
    """Return a random network in which the lead of any class over class 0 is concave: it has one summit in a ball.

    Its last `classes` units are always on: the linear part. The others bend every lead downwards.
    """
    network = relu_net(pixels, hidden=hidden + classes, classes=classes, seed=seed)
    first, second = network[1], network[3]
    first.bias.data[hidden:] = 0.1 - first.weight.data[hidden:].clamp(max=0).sum(1)
    second.weight.data[:, :hidden].abs_().mul_(-0.25)
    second.weight.data[0, :hidden] = 0
    second.bias.data.sub_(
        network(torch.rand(1000, pixels, generator=torch.Generator().manual_seed(seed))).detach().mean(0)
    )
    return network


def exact_distances(network: nn.Sequential, points: Tensor, labels: Tensor, norm: str) -> Tensor:
    """Return the smallest adversarial distance of each image: float64 [batch], 0 if wrong and inf if out of reach."""
    return torch.linalg.vector_norm(exact_offsets(network, points, labels, norm).flatten(1), _ORDERS[norm], dim=1)


def exact_offsets(network: nn.Sequential, points: Tensor, labels: Tensor, norm: str) -> Tensor:
    """From each image to its nearest adversary: float64, 0 if it is wrong itself and inf if there is none.

    Args:
        network: [Flatten, Linear, ReLU, Linear].
        points: images [batch, ...].
        labels: [batch].
        norm: "linf", "l2" or "l1".
    """
    pieces = _Pieces(network, norm)
    flat = points.double().flatten(1)
    found = [pieces.nearest(point, label) for point, label in zip(flat, labels.tolist(), strict=True)]
    return torch.from_numpy(np.stack(found)).view(points.shape)


class _Pieces:
    """The linear pieces of a network: one for each pattern of units that are on."""

    def __init__(self, network: nn.Sequential, norm: str) -> None:
        (first, bias), (second, logits_bias) = (
            (layer.weight.detach().double(), layer.bias.detach().double()) for layer in network[1::2]
        )
        self.norm, self.hidden = norm, len(bias)
        self.on = torch.tensor(list(product([0, 1], repeat=self.hidden)))
        # Where every unit keeps its state, and the logits there.
        signs = 2.0 * self.on.double() - 1
        self.walls, self.levels = signs[..., None] * first, signs * bias
        active = second * self.on.double()[:, None]
        self.logits, self.offsets = active @ first, active @ bias + logits_bias

    def nearest(self, point: Tensor, label: int) -> np.ndarray:
        """Return the offset to the nearest point of any piece where another class is level with the label."""
        others = [other for other in range(self.logits.shape[1]) if other != label]
        leads = self.logits[:, others] - self.logits[:, [label]]
        heads = self.offsets[:, others] - self.offsets[:, [label]]
        # No polyhedron is nearer than any of its sides; so those farther than what is found need no solving.
        sides = self._to(point, self.walls[[0, -1]], self.levels[[0, -1]])
        to_piece = sides[self.on, torch.arange(self.hidden)].amax(1, keepdim=True)
        least = torch.maximum(to_piece, self._to(point, leads, heads))
        best, shortest = np.full(len(point), np.inf), np.inf
        for index in least.flatten().argsort().tolist():
            piece, other = divmod(index, len(others))
            if least[piece, other] >= shortest:
                break
            walls = torch.cat([self.walls[piece], leads[piece, other][None]])
            need = -(walls @ point + torch.cat([self.levels[piece], heads[piece, other][None]]))
            solve = _least_square if self.norm == "l2" else _linear_programme
            offset = solve(walls.numpy(), need.numpy(), point.numpy(), self.norm)
            if offset is not None and np.linalg.norm(offset, _ORDERS[self.norm]) < shortest:
                best, shortest = offset, np.linalg.norm(offset, _ORDERS[self.norm])
        return best

    def _to(self, point: Tensor, slopes: Tensor, offsets: Tensor) -> Tensor:
        """Distances to halfspaces, shaped as their offsets."""
        flat = slopes.flatten(0, 1)[None], offsets.flatten()[None]
        return halfspace_distances(point[None], *flat, self.norm).view_as(offsets)


def _linear_programme(walls: np.ndarray, need: np.ndarray, point: np.ndarray, norm: str) -> np.ndarray | None:
    """Return the least offset d with walls · d >= need and point + d in [0, 1], if there is one."""
    count = len(point)
    if norm == "l1":  # d is what goes up less what goes down
        price, sides, limits = np.ones(2 * count), np.hstack([-walls, walls]), -need
        bounds = np.c_[np.zeros(2 * count), np.r_[1 - point, point]]
    else:  # one more variable bounds all others
        one, identity = np.ones((count, 1)), np.eye(count)
        price = np.r_[np.zeros(count), 1]
        sides = np.block([[-walls, 0 * need[:, None]], [identity, -one], [-identity, -one]])
        limits, bounds = np.r_[-need, np.zeros(2 * count)], np.r_[np.c_[-point, 1 - point], [[0, 1]]]
    solved = linprog(price, A_ub=sides, b_ub=limits, bounds=bounds, method="highs")
    if not solved.success:
        return None
    return solved.x[:count] - solved.x[count:] if norm == "l1" else solved.x[:count]


def _least_square(walls: np.ndarray, need: np.ndarray, point: np.ndarray, norm: str) -> np.ndarray | None:
    """Return the same in L2: with r = E u - e_last for the nonnegative u that makes it least, d = -r / r_last."""
    identity = np.eye(len(point))
    sides, limits = np.vstack([walls, identity, -identity]), np.r_[need, -point, point - 1]
    scale = np.linalg.norm(sides, axis=1)
    if (limits[scale == 0] > 0).any():
        return None
    sides, limits, scale = sides[scale > 0], limits[scale > 0], scale[scale > 0]
    matrix, goal = np.vstack([sides.T, limits]) / scale, np.r_[0 * point, 1]
    weights, residual = nnls(matrix, goal, maxiter=1000)
    if residual < 1e-7:  # no point has all that is asked for
        return None
    rest = matrix @ weights - goal
    return -rest[:-1] / rest[-1]


_ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}
