"""The reference networks and the original AutoAttack's verdicts on them, from GENERALIST_AA_REFERENCE."""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

VARIABLE = "GENERALIST_AA_REFERENCE"
NETWORKS = ("linear_nat", "plain_nat", "plain_at", "bn_at")
VARIANTS = ("plain_at__scaled1000", "plain_at__softmax", "plain_nat__quant8")


def folder() -> Path:
    """Return the folder; without it the program ends, with status 2."""
    named = os.environ.get(VARIABLE, "")
    if not named or not Path(named, "data.npz").is_file():
        found = f"is '{named}', where there is no data.npz" if named else "is not set"
        print(
            f"{VARIABLE} {found}: let it name the folder with the original AutoAttack's reference verdicts"
            " (data.npz, plain_at.json, …)",
            file=sys.stderr,
        )
        raise SystemExit(2)
    return Path(named)


@cache
def data() -> tuple[Tensor, Tensor]:
    """Return its 200 images float32 [200, 1, 8, 8] and labels int64 [200]."""
    with np.load(folder() / "data.npz") as arrays:
        return torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"]).long()


def network(name: str) -> nn.Module:
    """Return one of its networks, checked against its clean logits; a variant is `<network>__<what is done to it>`."""
    base, _, variant = name.partition("__")
    norm = base.startswith("bn")
    first = nn.Conv2d(1, 16, 3, padding=1, bias=not norm)
    second = nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=not norm)
    batch_norms = ([nn.BatchNorm2d(16)], [nn.BatchNorm2d(32)]) if norm else ([], [])
    convolutions = [first, *batch_norms[0], nn.ReLU(), second, *batch_norms[1], nn.ReLU()]
    layers = [] if base.startswith("linear") else convolutions
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(512 if layers else 64, 10)).eval()
    model.load_state_dict(load_file(folder() / f"{base}.safetensors"), strict=False)
    expected = torch.from_numpy(np.load(folder() / f"{base}_logits.npy"))
    torch.testing.assert_close(model(data()[0]).detach(), expected, atol=1e-4, rtol=0)
    return _Variant(model, variant).eval() if variant else model


class _Variant(nn.Module):
    """A network that hides its gradient in one of three ways."""

    def __init__(self, model: nn.Module, variant: str) -> None:
        super().__init__()
        self.model, self.variant = model, variant

    def forward(self, points: Tensor) -> Tensor:
        if self.variant == "quant8":
            points = (points * 8).round() / 8
        logits: Tensor = self.model(points)
        if self.variant == "scaled1000":
            logits = logits * 1000
        return logits.softmax(1) if self.variant == "softmax" else logits


@dataclass(frozen=True)
class Run:
    """One run of the original.

    Attributes:
        network: name of the network.
        key: name of the run in the network's file.
        norm, eps: the threat.
        version, seed, batch_size: of the run.
        broken: bool [200] after the last attack, clean mistakes included; None where attacks ran alone.
        after: the same after each attack in turn.
        alone: what each attack broke on all correctly classified images, where that was run.
        warnings: the original's.
    """

    network: str
    key: str
    norm: str
    eps: float
    version: str
    seed: int
    batch_size: int
    broken: Tensor | None
    after: dict[str, Tensor]
    alone: dict[str, Tensor]
    warnings: tuple[str, ...]

    @property
    def name(self) -> str:
        """Such as `plain_at/linf:0.2/standard`."""
        return f"{self.network}/{self.norm}:{self.eps}/{self.version}"


def runs(*names: str) -> Iterator[Run]:
    """Yield every run of the original against these networks."""
    for name in names:
        for key, run in json.loads((folder() / f"{name}.json").read_text(encoding="utf-8")).items():
            yield Run(
                network=name,
                key=key,
                norm=run["norm"].lower(),
                eps=run["eps"],
                version=run["version"],
                seed=run["seed"],
                batch_size=run["bs"],
                broken=broken(run["final_flags"]) if "final_flags" in run else None,
                after={attack: broken(part["robust_flags"]) for attack, part in run.get("cumulative", {}).items()},
                alone={attack: broken(part["robust_flags"]) for attack, part in run.get("individual", {}).items()},
                warnings=tuple(run["warnings"]),
            )


@dataclass(frozen=True)
class Known:
    """What all runs of the original together know of a network and a threat.

    Attributes:
        broken: bool [200], broken by any run.
        core: broken by every run.
        n_runs: how many there were; the core means something from two on.
    """

    broken: Tensor
    core: Tensor
    n_runs: int


def known(run: Run) -> Known | None:
    """Return what is known beyond this run."""
    summary: dict[str, Any] = json.loads((folder() / "summary_best_known.json").read_text(encoding="utf-8"))
    own = summary.get(f"{run.network}|{run.norm.capitalize()}|{run.eps}")
    if own is None:
        return None
    core = torch.tensor([flag == "1" for flag in own["stable_core_broken_flags"]])
    return Known(broken(own["best_known_robust_flags"]), core, own["n_runs"])


def broken(flags: str) -> Tensor:
    """Return '1' for robust and '0' for broken, as a mask of the broken."""
    return torch.tensor([flag == "0" for flag in flags])
