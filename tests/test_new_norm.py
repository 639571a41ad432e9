"""One more norm is one more file: the configuration, the attacks and the whole cascade take it as it is."""

from pathlib import Path

from tests.plugin_copy import run_with

NOVEL = '''"""The upper half of an image may change by up to eps in each pixel, the lower one by half as much."""

import torch

from generalist.threats.contract import Ball
from generalist.threats.geometry.hyperplane_projection import move_together
from generalist.threats.geometry.square_patterns import Corners


def sizes(images):
    """How much each pixel may change for an eps of 1."""
    high = torch.arange(images.shape[2], device=images.device) < images.shape[2] // 2
    return (0.5 + 0.5 * high.to(images.dtype)).view(1, 1, -1, 1).expand_as(images)


class HalvesBall(Ball):
    symbol = "halves"
    squares = Corners

    @staticmethod
    def whole_range(pixels):
        return 2.0

    def safe_radius(self, eps, unit):
        return eps - unit

    @staticmethod
    def norm(offsets):
        return (offsets.double().abs() / sizes(offsets).double()).flatten(1).amax(1)

    @classmethod
    def dual_norm(cls, gradient):
        return (gradient.double().abs() * sizes(gradient).double()).flatten(1).sum(1)

    @staticmethod
    def fill(steepness, room, missing):
        half = steepness.shape[1] // 2
        return move_together(steepness, room, missing, torch.where(torch.arange(2 * half) < half, 1.0, 0.5).to(steepness))

    @classmethod
    def steepest_ascent(cls, gradient):
        return gradient.sign() * sizes(gradient)

    def project_(self, points):
        most = self.radius * sizes(points)
        return points.copy_(torch.clamp(points, self.images - most, self.images + most).clamp_(0, 1))

    def random_offset(self, generator):
        drawn = torch.rand(self.images.shape, generator=generator, dtype=self.images.dtype)
        return (2 * drawn - 1) * self.radius * sizes(self.images)

    def boundary_offset(self, streams):
        offsets = streams.uniform(0, *self.images.shape[1:]).to(self.images.dtype).mul_(2).sub_(1)
        largest = offsets.abs().amax(dim=(1, 2, 3), keepdim=True)
        return offsets / largest * sizes(self.images) * self.radius
'''

PROGRAM = """
import torch
from generalist.attacks import autoattack
from generalist.config import load
from generalist.threats import Threat

config = load(preset="digits", overrides=["experts.robust.objective.threat={norm: halves, eps: 0.1}"])
assert config.experts["robust"].objective.threat.norm == "halves"

torch.set_num_threads(1)
torch.manual_seed(0)
network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
images = torch.full((12, 1, 4, 4), 0.5) + 0.1 * torch.rand(12, 1, 4, 4)
labels = network(images).argmax(1)
weights = network[1].weight.detach().double()
allowed = torch.where(torch.arange(16) < 8, 1.0, 0.5).double()
logits = network(images).detach().double()
distances = []  # where the pixel range does not bind: a hyperplane's distance in this norm
for image in range(12):
    y = int(labels[image])
    others = [j for j in range(3) if j != y]
    own = [(logits[image, y] - logits[image, j]) / ((weights[y] - weights[j]).abs() @ allowed) for j in others]
    distances.append(float(min(own)))
exact = torch.tensor(distances)
eps = float(exact.median())
assert eps < 0.4
for attack, share in (("apgd-ce", 1.01), ("fab-t", 1.01), ("square", 2.0)):  # what asks for the norm's own geometry
    found = autoattack(network, images, labels, Threat("halves", eps), seed=0, attacks=[attack], square_queries=200)
    assert found.robust[exact > 1.01 * eps].all(), attack
    assert not found.robust[share * exact < eps].any(), attack
    assert ((found.adversarial - images).flatten(1).abs() <= eps * allowed + 1e-6).all(), attack
print("all of it")
"""


def test_one_file_is_one_more_norm(root: Path, tmp_path: Path) -> None:
    """A norm of its own for the halves of an image: verdicts of linear models are the exact ones, in its ball."""
    run_with(root, tmp_path, "threats/halves.py", NOVEL, PROGRAM)
