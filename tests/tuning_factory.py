"""Small searches over small trainings of digits."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from generalist.config import Config, to_yaml
from pipelines.trial_records import TrialRecord
from pipelines.tuning.storage import address_of, open_storage
from pipelines.tuning.study import Search, create_search
from pipelines.workspace import Workspace
from tests import tracking_factory, training_factory

OPTIMIZERS = {"choices": {"slow": {"name": "sgd", "lr": 0.02}, "usual": {"name": "sgd", "lr": 0.05}}}
SPACE = {
    "mixing.warm_up": {"choices": [1, 2, 3]},
    "mixing.interval": {"choices": [1, 2]},
    "mixing.decay": {"choices": [0.05, 0.5]},
    "experts.robust.optimizer": OPTIMIZERS,
}
SMALL = (
    f"tuning.space={json.dumps(SPACE)}",
    "tuning.attack=selection",
    "tuning.startup_trials=3",
    "tuning.rung=1",
    "training.epochs=4",
    "tuning.trials=6",
    "tuning.seeds=2",
)


def project(folder: Path, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Return a project with a small search, which is the current folder."""
    tracking_factory.workspace(folder, pytestconfig)
    (folder / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    (folder / "params.yaml").write_text(to_yaml(small()), encoding="utf-8")
    monkeypatch.chdir(folder)
    for name in ("DVC_ROOT", "GENERALIST_TUNING", "GENERALIST_STORE"):
        monkeypatch.delenv(name, raising=False)
    return Workspace.find()


def small(*overrides: str) -> Config:
    """Return a small search over small trainings."""
    return training_factory.small(*SMALL, *overrides)


def search(workspace: Workspace, *overrides: str, trials: int | None = None) -> Search:
    """One that waits for workers."""
    config = small(*overrides)
    found = create_search(config, open_storage(address_of(workspace, None)), workspace.locks)
    found.fill([{}] * (config.tuning.trials if trials is None else trials))
    return found


def told(records: Sequence[TrialRecord]) -> list[tuple[object, ...]]:
    """Return what must not depend on who worked, or how often anything was killed."""
    return [
        (record.number, record.state, record.params, record.values, record.epoch, record.epochs_asked)
        for record in records
    ]


def again(found: Search, workspace: Workspace) -> Search:
    """Return the same search through a storage of its own, as another process has it."""
    return create_search(found.space.config, open_storage(address_of(workspace, None)), workspace.locks)
