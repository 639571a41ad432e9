"""One more norm, or one more space, is one more file: configuration, attacks and the cascade take it as it is.

The space is generative: a tiny autoencoder's latent numbers are moved.
"""

from pathlib import Path

import pytest

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

GENERATED = '''"""Latent: what a generator makes of an image may change as its latent numbers do, each by up to eps."""

import functools
from typing import ClassVar

import torch
from pydantic import Field
from sklearn.datasets import load_digits
from torch import nn

from generalist.config import Quantity
from generalist.config.bounds import Count, Positive
from generalist.threats.spaces.contract import Space, beside, parts


@functools.cache
def autoencoder(numbers):
    """Return an encoder and a decoder, trained for a second on digits, the same each time."""
    images = torch.tensor(load_digits().data / 16, dtype=torch.float32)
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, numbers))
        decoder = nn.Sequential(nn.Linear(numbers, 32), nn.Tanh(), nn.Linear(32, 64))
        both = nn.Sequential(encoder, decoder)
        optimizer = torch.optim.Adam(both.parameters(), lr=0.01)
        for _ in range(300):
            optimizer.zero_grad()
            (both(images) - images).square().mean().backward()
            optimizer.step()
    return both.eval().requires_grad_(False)


class Latent(Space):
    """x + G(E(x) + eps u) - G(E(x)) with u in [-1, 1]: what the autoencoder leaves out of an image stays."""

    symbol: ClassVar[str] = "latent"
    unit: ClassVar[float] = 0.5
    members: ClassVar = ("apgd-ce", "apgd-t")

    eps: Positive = Field(Quantity(1), le=1, description="share of the reach")
    numbers: Count = Field(8, le=64, description="latent numbers of an image")
    reach: Positive = Field(Quantity(1), description="by how much each may change")

    def points(self, images):
        return beside(images, self.numbers)

    def images(self, points):
        images, numbers = parts(points, self.numbers)
        encoder, decoder = (part.to(images) for part in autoencoder(self.numbers))
        codes = encoder(images.flatten(1))
        change = decoder(codes + float(self.reach) * (2 * numbers - 1)) - decoder(codes)
        return (images + change.view_as(images)).clamp(0, 1)

    def free(self, points):
        black, _ = parts(points.new_zeros(1, *points.shape[1:]), self.numbers)
        return (beside(black, self.numbers) > 0).to(points.dtype)
'''

NORM = """
config = load(preset="digits", overrides=["experts.robust.objective.threat={norm: halves, eps: 0.1}"])
assert config.experts["robust"].objective.threat.norm == "halves"

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
"""

SPACE = """
import sys
from pathlib import Path
import torch
from generalist.attacks import autoattack
from generalist.config import load
from generalist.data import prepare, load as load_data
from generalist.evaluation import protocol
from generalist.store import Store
from generalist.threats import Threat
from generalist.training import run

torch.set_num_threads(1)
few = ["data.images=200", "training.epochs=1", "training.checkpoint_epochs=1", "model.width=4"]
few += ["evaluation.selection_attack.steps=2", "evaluation.threats=[{norm: latent, numbers: 6}]"]
threat = "experts.robust.objective.threat={norm: latent, numbers: 6}"
config = load(preset="digits-pgd-at", overrides=[*few, threat])
assert config.experts["robust"].objective.threat.reach == 1
folder = Path(sys.argv[1])
prepare(config.data, folder / "data", root=folder)
dataset = load_data(folder / "data")
outcome = run(config, dataset, Store(folder / "store"))
assert outcome.chosen.validation.robust.n > 0
assert [*protocol(config, dataset).attacks] == ["pgd", "apgd-ce+apgd-t"]

against = Threat.parse("latent:1 numbers 6 reach 0.3")
images = torch.rand(20, 1, 8, 8)
assert torch.equal(against.space.images(against.space.points(images)), images)
torch.manual_seed(0)
network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
labels = network(images).argmax(1)
found = autoattack(network, images, labels, against)
assert 0 < int(found.robust.sum()) < 20, found.robust
assert torch.equal(network(found.adversarial).argmax(1) == labels, found.robust)
"""


@pytest.mark.long
def test_one_file_is_one_more_norm_or_space(root: Path, tmp_path: Path) -> None:
    """In a norm of its own, verdicts of linear models are the exact ones; a space is trained on, and chosen by."""
    files = {"threats/halves.py": NOVEL, "threats/spaces/latent.py": GENERATED}
    run_with(root, tmp_path, files, SPACE + NORM + 'print("all of it")\n')
