"""What a training takes from the store, and that a forecast knows it before."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from generalist.config import to_yaml
from generalist.data import Dataset
from generalist.records import EpochRecord
from generalist.store import Store
from generalist.training import Trainer, duration
from tests.training_factory import finish, small


def _trained_epochs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the epoch whenever a group trains one."""
    from generalist.expert_group import ExpertGroup

    trained: list[int] = []
    epoch = ExpertGroup.epoch

    def counted(self, data, **how):  # type: ignore[no-untyped-def]
        trained.extend(expert.epoch + 1 for expert in self.experts)
        return epoch(self, data, **how)

    monkeypatch.setattr(ExpertGroup, "epoch", counted)
    return trained


def test_a_baseline_goes_on_from_the_experts_warm_up_whatever_its_name(
    dataset: Dataset, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PGD-AT is the robust expert's warm-up gone on: trajectories know neither mixing nor names."""
    config = small()
    trained = _trained_epochs(monkeypatch)
    baseline = config.model_copy(
        update={"mixing": None, "deploy": "expert:pgd_at", "experts": {"pgd_at": config.experts["robust"]}}
    )
    facts, _ = finish(baseline, dataset, finished)
    assert min(trained) == 3
    assert {fact.expert for fact in facts if isinstance(fact, EpochRecord)} == {"pgd_at"}


@pytest.mark.parametrize(
    "override",
    [
        "experts.robust.optimizer.lr=0.01",
        "experts.robust.optimizer.weight_decay=0",
        "experts.robust.objective.threat.eps=0.1",
        "experts.robust.augment=[crop]",
        "experts.robust.schedule=[[0, 1], [0.5, 0.5]]",
        "experts.robust.averaging=0.9",
        "training.batch_size=128",
        "training.threads=2",
        "model.width=5",
        "seed=7",
    ],
)
def test_whatever_decides_a_trajectory_is_in_its_key(dataset: Dataset, tmp_path: Path, override: str) -> None:
    """Each of these gives the robust expert other keys; none is mistaken for the other."""
    keys = []
    for config in (small(), small(override)):
        training = Trainer(config, dataset, Store(tmp_path))
        keys.append(training._keys.ahead(training.rounds[0], ("robust",), {"robust": training._keys.start("robust")}))
    last = max(keys[0]["robust"])
    assert keys[0]["robust"][last].trajectory != keys[1]["robust"][last].trajectory


def test_mixing_is_in_the_key_of_the_share_alone(dataset: Dataset, tmp_path: Path) -> None:
    """Before the first redistribution a trajectory knows nothing of weights and decay."""
    keys = []
    for config in (small(), small("mixing.decay=0.9", "mixing.weights.robust=0.5")):
        training = Trainer(config, dataset, Store(tmp_path))
        ahead = training._keys.ahead(training.rounds[0], ("robust",), {"robust": training._keys.start("robust")})
        keys.append(ahead["robust"][2])
    assert keys[0].trajectory == keys[1].trajectory
    assert keys[0].share != keys[1].share


# --- forecasts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "left", "since"),
    [
        ((), 10, 1),
        (("evaluation.selection_attack.steps=1", "evaluation.attack=standard"), 0, 0),
        (("mixing.interval=2",), 4, 4),  # the warm-up is used again, and the epoch after the first redistribution
        (("mixing.warm_up=4",), 6, 3),  # it goes on from the shorter one
        (("mixing.decay=0.1",), 10, 1),
        (("experts.robust.optimizer.lr=0.01",), 8, 1),
        (("training.epochs=6",), 2, 6),
        (("mixing.interval={steps: 2}",), 6, 3),
    ],
)
def test_a_forecast_is_what_is_then_trained(
    dataset: Dataset,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    overrides: tuple[str, ...],
    left: int,
    since: int,
) -> None:
    """Epochs of experts, counted before and while they are trained, and the first; the first case begins with nothing."""
    trained = _trained_epochs(monkeypatch)
    store = finished if overrides else tmp_path / "empty"
    work = Trainer(small(*overrides), dataset, Store(store)).forecast()
    assert sum(len(own.experts) * own.epochs for own in work) == left
    finish(small(*overrides), dataset, store)
    assert len(trained) == left
    assert min(trained, default=0) == since


def test_a_forecast_writes_and_computes_nothing(dataset: Dataset, tmp_path: Path) -> None:
    """There is not even a folder afterwards."""
    Trainer(small(), dataset, Store(tmp_path / "store")).forecast()
    assert not (tmp_path / "store").exists()


def test_a_forecast_takes_as_long_as_such_epochs_took(dataset: Dataset, finished: Path) -> None:
    """Groups side by side take as long as the slowest; what was never trained here has no time."""
    config = small("training.epochs=9")
    work = Trainer(config, dataset, Store(finished)).forecast()
    slowest = {own.round.index: max(part.seconds or 0.0 for part in work if part.round == own.round) for own in work}
    assert duration(work) == pytest.approx(
        sum(slowest[index] for index in range(work[-1].round.index - 3, 99) if index in slowest)
    )
    other = small("experts.robust.objective.attack.steps=9")
    assert duration(Trainer(other, dataset, Store(finished)).forecast()) is None


# --- plug-ins ---------------------------------------------------------------------------------------

NOVEL = """
from typing import Literal

from generalist.models import Classifier
from generalist.objectives.contract import Loss, Objective
from generalist.tensors import Batch, Images


class Novel(Objective):
    name: Literal["novel"]

    def loss(self, model: Classifier, batch: Batch, attacked: Images) -> Loss:
        raise NotImplementedError
"""


def told(project: Path, *words: str) -> str:
    """Return what a command of this copy of the project says."""
    asked = subprocess.run(
        [sys.executable, *words],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        check=True,
    )
    return asked.stdout


@pytest.mark.long
def test_a_new_plug_in_file_leaves_nothing_to_train(tmp_path: Path) -> None:
    """In a project whose store was filled before; a change to what trains leaves everything."""
    root = Path(__file__).parent.parent
    for part in ("generalist", "pipelines", "presets"):
        shutil.copytree(root / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    config = small("training.epochs=2", "mixing.warm_up=1")
    (tmp_path / "params.yaml").write_text(to_yaml(config), encoding="utf-8")
    places = ["--data", "data/prepared", "--store", ".generalist/store", "--out", "out"]
    told(tmp_path, "-m", "generalist.training", "--params", "params.yaml", *places)
    plan = ("-c", "from pipelines.cli import app; app()", "plan")
    assert "to train: nothing; the store holds all 4 epochs" in told(tmp_path, *plan)
    (tmp_path / "generalist" / "objectives" / "novel.py").write_text(NOVEL, encoding="utf-8")
    for kind in ("models", "threats", "data/sources", "attacks/members"):
        (tmp_path / "generalist" / kind / "brand_new.py").write_text("NEW = 1\n", encoding="utf-8")
    assert "to train: nothing; the store holds all 4 epochs" in told(tmp_path, *plan)
    with (tmp_path / "generalist" / "expert_group.py").open("a", encoding="utf-8") as file:
        file.write("NEW = 1\n")
    assert "to train: 4 of 4 epochs" in told(tmp_path, *plan)
