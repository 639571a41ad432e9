"""The folder with the reference verdicts of the original AutoAttack, where there is one; its README tells its form."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

VARIABLE = "GENERALIST_AA_REFERENCE"


def folder() -> Path:
    """The folder; without it the test that asks is skipped."""
    named = os.environ.get(VARIABLE, "")
    if not named or not Path(named, "data.npz").is_file():
        pytest.skip(f"{VARIABLE} names no folder with the reference verdicts of the original AutoAttack")
    return Path(named)


def data() -> tuple[Tensor, Tensor]:
    """Its 200 images float32 [200, 1, 8, 8] and labels int64 [200]."""
    with np.load(folder() / "data.npz") as arrays:
        return torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"]).long()


def network(name: str) -> nn.Sequential:
    """One of its networks, checked against its clean logits."""
    norm = name.startswith("bn")
    first = nn.Conv2d(1, 16, 3, padding=1, bias=not norm)
    second = nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=not norm)
    batch_norms = ([nn.BatchNorm2d(16)], [nn.BatchNorm2d(32)]) if norm else ([], [])
    convolutions = [first, *batch_norms[0], nn.ReLU(), second, *batch_norms[1], nn.ReLU()]
    layers = [] if name.startswith("linear") else convolutions
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(512 if layers else 64, 10)).eval()
    model.load_state_dict(load_file(folder() / f"{name}.safetensors"), strict=False)
    expected = torch.from_numpy(np.load(folder() / f"{name}_logits.npy"))
    torch.testing.assert_close(model(data()[0]).detach(), expected, atol=1e-4, rtol=0)
    return model


def broken(flags: str) -> Tensor:
    """'1' for robust and '0' for broken, as a mask of the broken."""
    return torch.tensor([flag == "0" for flag in flags])
