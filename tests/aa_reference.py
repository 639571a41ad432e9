"""The reference verdicts of the original AutoAttack for tests, which skip without; `benchmarks` reads the files."""

import os
from pathlib import Path

import pytest
from torch import Tensor, nn

from benchmarks import reference_models


def folder() -> Path:
    """Return the folder; without it the test that asks is skipped."""
    named = os.environ.get(reference_models.VARIABLE, "")
    if not named or not Path(named, "data.npz").is_file():
        pytest.skip(
            f"{reference_models.VARIABLE} names no folder with the reference verdicts of the original AutoAttack"
        )
    return Path(named)


def data() -> tuple[Tensor, Tensor]:
    """Its 200 images float32 [200, 1, 8, 8] and labels int64 [200]."""
    folder()
    return reference_models.data()


def network(name: str) -> nn.Module:
    """One of its networks, checked against its clean logits."""
    folder()
    return reference_models.network(name)
