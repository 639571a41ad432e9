"""One more space is one more file; the example is generative: a tiny autoencoder's latent numbers are moved."""

from pathlib import Path

from tests.plugin_copy import run_with

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

PROGRAM = """
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
print("all of it")
"""


def test_one_file_is_one_more_space(root: Path, tmp_path: Path) -> None:
    """Trained on, chosen by, attacked and recorded; nothing else names it."""
    run_with(root, tmp_path, "threats/spaces/latent.py", GENERATED, PROGRAM)
