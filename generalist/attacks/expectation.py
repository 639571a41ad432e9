"""Models that draw random numbers: each pass with numbers of its own, and their expectation."""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from generalist.attacks.losses import Network
from generalist.tensors import Images, Logits


class Drawn:
    """A network whose n-th pass since `begin` draws numbers that depend on the seed, the purpose, the place and n."""

    def __init__(self, network: Network, seed: int, purpose: str) -> None:
        self.network, self.seed, self.purpose = network, seed, purpose
        self.begin("")

    def begin(self, place: str) -> None:
        """Start numbering passes anew, for one place of an evaluation."""
        self.key, self.passes = f"{self.seed} {self.purpose} {place}", 0

    def __call__(self, images: Images) -> Logits:
        with _numbers(f"{self.key} {self.passes}", images.device):
            self.passes += 1
            return self.network(images)


class Expectation:
    """log of the mean softmax over some draws: what an attack on the expected answer climbs (Athalye et al. 2018)."""

    def __init__(self, network: Network, draws: int, seed: int) -> None:
        self.drawn, self.draws = Drawn(network, seed, "search"), draws

    def __call__(self, images: Images) -> Logits:
        logs = torch.stack([self.drawn(images).float().log_softmax(1) for _ in range(self.draws)])
        return logs.logsumexp(0) - math.log(self.draws)


@contextmanager
def _numbers(key: str, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators by a key, and put them back."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        seed = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest(), "little")
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        yield
