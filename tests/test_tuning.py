"""Searches: their trials share their work to the bit, interrupted ones make the same choices, and the best is told."""

import csv
import json
from itertools import product
from pathlib import Path

import optuna
import pytest
import yaml

from generalist.config import Config, load, to_yaml
from generalist.data import load as load_data
from generalist.errors import BadInput
from generalist.records import Accuracy, Measured
from generalist.store import Store
from pipelines import steps
from pipelines.trial_records import StudyRecord
from pipelines.tuning import summary
from pipelines.tuning.objective import Objective
from pipelines.tuning.storage import address_of, open_storage
from pipelines.tuning.study import Search, Worker, create_search
from pipelines.tuning.trial_training import training_of_trial
from pipelines.tuning.worker import join, work
from pipelines.workspace import Workspace
from tests import training_factory, tuning_factory
from tests.command_line import generalist
from tests.processes import another_process, forking, until
from tests.services import ROOT
from tests.tuning_factory import again, search, small

pytestmark = pytest.mark.long

SMALL_TRAINING = (*training_factory.SMALL, "tuning.attack=selection", "tuning.finalists=1")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A project with a small search, which is the current folder."""
    return tuning_factory.project(tmp_path, pytestconfig, monkeypatch)


def test_every_trial_has_the_bits_of_a_training_of_its_own(project: Workspace, tmp_path: Path) -> None:
    """A whole grid, into one store: what is chosen and what it weighs, and much less than all of it is trained."""
    config = small("tuning.sampler=grid")
    found = create_search(config, open_storage(address_of(project, None)), project.locks)
    dataset, store = steps.dataset(config, project), Store(tmp_path / "shared")
    asked = trained = 0
    for number, point in enumerate(found.space.grid()):
        own = found.space.at(point)
        one = training_of_trial(found.space, own, dataset, store, project.here)
        ended = list(one.rounds())
        asked, trained = asked + one.work.asked, trained + one.work.trained
        if number % 11:  # of every eleventh, whether it is what it would be alone
            continue
        chosen = one.training.choose([each.candidate for each in ended])
        _, alone = training_factory.finish(own, dataset, tmp_path / f"alone {number}")
        assert chosen.record.digest == alone.chosen.digest
        assert chosen.record.validation == alone.chosen.validation
    assert asked == 24 * 8
    assert (
        trained == 3 + 2 * 3 + _after_the_warm_ups()
    )  # the longest warm-up of the natural expert, and two of the other


def _after_the_warm_ups() -> int:
    """Epochs of both experts after each first redistribution: two intervals, which agree up to the first one's end."""
    each = {warm_up: 2 * (4 - warm_up) for warm_up in (1, 2, 3)}
    of_both_intervals = sum(2 * own - 2 for own in each.values())
    return of_both_intervals * 2 * 2  # decays, optimizers


@forking
def test_two_workers_compute_a_segment_once(project: Workspace) -> None:
    """One that finds somebody at it waits, and then finds it done."""
    found = search(project, "tuning.space={mixing.warm_up: {choices: [3]}}", trials=2)
    with another_process(lambda: work(found, project)):
        work(again(found, project), project)
        until(lambda: not found.left())
    records = found.records()
    assert [record.state for record in records] == ["complete", "complete"]
    assert sorted(own.epochs_trained for own in records) != [8, 8]
    assert sum(own.epochs_trained for own in records) == 8


@pytest.mark.parametrize("sampler", ["tpe", "gp", "nsga2", "random"])
def test_an_interrupted_search_makes_the_same_choices(project: Workspace, sampler: str) -> None:
    """Every trial through a search opened anew, against one that stays open; values are made up, points are not."""
    chosen = []
    for name, opened_once in (("whole", True), ("in pieces", False)):
        config = small(f"tuning.sampler={sampler}", "tuning.seed=3")

        def fresh(config: Config = config, name: str = name) -> Search:
            return create_search(config, open_storage(str(project.root / f"{name}.log")), project.locks, name="a")

        kept = fresh()
        kept.fill([{}] * 6)
        points = []
        for number in range(6):
            own = kept if opened_once else fresh()
            worker = Worker(own)
            trial = own.next(worker)
            assert trial is not None
            points.append(own.space.suggest(trial))
            own.study.tell(trial, float(number % 3))
            worker.close()
        chosen.append(points)
    assert chosen[0] == chosen[1]
    assert len({tuple(sorted(map(str, point.items()))) for point in chosen[0]}) > 1


def test_pruning_and_two_objectives(project: Workspace) -> None:
    """Hopeless trials end at a rung with a reason; two objectives have a front, and no pruning."""
    space = (
        "tuning.space={experts.robust.optimizer: {choices: {good: {name: sgd, lr: 0.1}, bad: {name: sgd, lr: 1e-6}}}}"
    )
    found = search(project, space, "tuning.startup_trials=1", "tuning.seed=1", "mixing.warm_up=1", trials=8)
    work(found, project)
    records = found.records()
    pruned = [record for record in records if record.state == "pruned"]
    assert pruned and all(own.params["experts.robust.optimizer"] == "bad" for own in pruned)
    assert all(own.reason and "MedianPruner" in own.reason and own.epochs_asked < 8 for own in pruned)
    front = search(project, "tuning.objective=pareto", trials=2)
    work(front, project)
    assert all(len(own.values) == 2 and own.state == "complete" for own in front.records())
    assert len(front.study.best_trials) >= 1


def test_natural_at_least_puts_accuracy_first(project: Workspace) -> None:
    """Any learner that is accurate enough beats all that are not, and among those the more accurate wins."""
    own = Objective(small("tuning.objective={natural_at_least: 0.9}").tuning)

    def value(natural: int, robust: int) -> float:
        measured = Measured(natural=Accuracy(correct=natural, n=100), robust=Accuracy(correct=robust, n=100))
        return own.value(measured)

    assert value(90, 10) > value(89, 80) > value(50, 49)
    assert value(95, 60) > value(99, 50)


def test_joining_works_at_what_is_left(project: Workspace) -> None:
    """By name, from another shell; Optuna's own tools read what was found."""
    found = search(project, trials=2)
    assert join(project, name=found.name, address=None) == 2
    assert not found.left()
    study = optuna.load_study(study_name=found.name, storage=open_storage(address_of(project, None)))
    assert study.best_value == max(record.values[0] for record in found.records())
    with pytest.raises(BadInput, match="there is no search 'nobody'"):
        join(project, name="nobody", address=None)


def test_the_best_configuration_is_a_preset_for_every_door(project: Workspace) -> None:
    """It is checked, used, and trains to what the trial had."""
    found = search(project, trials=1)
    work(found, project)
    (record,) = found.records()
    path = project.root / "best.yaml"
    path.write_text(to_yaml(found.space.at(record.params)), encoding="utf-8")
    assert generalist("config", "check", "--preset", "best.yaml").exit_code == 0
    assert generalist("config", "use", "best.yaml", "--force").exit_code == 0
    dataset = load_data(steps.prepare_data(load(path), project))
    _, alone = training_factory.finish(load(path), dataset, project.root / "alone")
    assert record.epoch == alone.chosen.epoch
    assert record.validation == alone.chosen.validation


def test_a_training_without_mixing_is_searched_and_pruned_too(project: Workspace) -> None:
    """Its one expert is measured where its states are stored."""
    space = {
        "experts.robust.optimizer": {
            "choices": {"good": {"name": "sgd", "lr": 0.1}, "bad": {"name": "sgd", "lr": 1e-6}}
        }
    }
    alone = ("mixing=null", "deploy=expert:robust", f"tuning.space={json.dumps(space)}", "tuning.startup_trials=1")
    found = search(project, *alone, "tuning.seed=1", trials=6)
    work(found, project)
    records = found.records()
    assert {record.state for record in records} == {"complete", "pruned"}
    assert all(own.params["experts.robust.optimizer"] == "bad" for own in records if own.state == "pruned")
    assert all([point.epoch for point in own.curve] == [1, 2, 3, 4] for own in records if own.state == "complete")
    assert all(own.remix is None for own in records)


def test_hyperband_prunes_too(project: Workspace) -> None:
    """By name; what it does is Optuna's."""
    found = search(project, "tuning.pruner=hyperband", trials=3)
    work(found, project)
    assert {record.state for record in found.records()} <= {"complete", "pruned"}
    assert type(found.study.pruner).__name__ == "HyperbandPruner"


def test_values_without_end_are_told(project: Workspace) -> None:
    """Searching over them works, and the summary says what they cost."""
    space = {"experts.robust.optimizer.lr": {"low": 0.01, "high": 0.1, "log": True}}
    found = search(project, f"tuning.space={json.dumps(space)}", trials=2)
    work(found, project)
    record = StudyRecord(
        name="s",
        objective=("harmonic mean",),
        dimensions={},
        trials=tuple(found.records()),
        endless=tuple(found.space.endless()),
    )
    text = "\n".join(summary.lines(record))
    assert "experts.robust.optimizer.lr has values without end" in text
    assert "16 asked for, 14 trained" in text  # two epochs of the natural expert, its warm-up, are common


def test_an_ablation_gives_a_table_and_a_plot(project: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid of one's own over a preset, every point of it."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for its worker
    grid = {"mixing.decay": {"choices": [0.2, 0.5]}, "mixing.interval": {"choices": [1, 2]}}
    (project.root / "mine.yaml").write_text(yaml.safe_dump({"preset": "digits", "space": grid}), encoding="utf-8")
    small_ones = [word for override in SMALL_TRAINING for word in ("--set", override)]
    done = generalist("ablate", "mine.yaml", "--workers", "1", *small_ones)
    assert done.exit_code == 0, done.output
    (folder,) = (project.root / "tuning").iterdir()
    rows = list(csv.DictReader((folder / "ablation.csv").read_text(encoding="utf-8").splitlines()))
    assert {(row["mixing.decay"], row["mixing.interval"]) for row in rows} == set(product(["0.2", "0.5"], ["1", "2"]))
    assert all(float(row["natural_low"]) <= float(row["natural"]) <= float(row["natural_high"]) for row in rows)
    assert (folder / "ablation.png").read_bytes().startswith(b"\x89PNG")
    assert "harmonic mean" in done.stdout
