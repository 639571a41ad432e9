"""Whatever is killed: no trial of a search is lost, and none counted twice."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from optuna.trial import TrialState

from generalist.config import load
from pipelines.tuning.storage import address_of, open_storage
from pipelines.tuning.study import RECORD, Worker, create_search
from pipelines.tuning.worker import work
from pipelines.workspace import Workspace
from tests import tuning_factory
from tests.processes import another_process, forking, until
from tests.services import environment
from tests.tuning_factory import again, search, small, told

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def project(tmp_path: Path, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A project with a small search, which is the current folder."""
    return tuning_factory.project(tmp_path, pytestconfig, monkeypatch)


@forking
def test_workers_killed_at_random_lose_no_trial_and_count_none_twice(project: Workspace) -> None:
    """Each trial ends once, with the values that it has where nobody is killed, as with one worker choices agree."""
    found, chance = search(project), random.Random(5)
    for _ in range(12):
        with another_process(lambda: work(again(found, project), project)):
            time.sleep(chance.uniform(0.05, 1.5))
        if not found.left():
            break
    work(found, project)
    records = found.records()
    assert [record.number for record in records] == list(range(6))
    assert not found.left()
    undisturbed = create_search(
        small(), open_storage(str(project.root / "other.log")), project.locks, name="undisturbed"
    )
    undisturbed.fill([{}] * 6)
    work(undisturbed, project)
    assert told(records) == told(undisturbed.records())


def test_a_killed_search_goes_on_with_the_same_command(project: Workspace) -> None:
    """By SIGKILL; afterwards all trials have ended once, and the best goes on to the registry, over seeds."""
    command = [sys.executable, "-c", "from pipelines.cli import main; main()", "tune", "--workers", "2"]
    own = environment()
    first = subprocess.Popen(command, cwd=project.root, env=own, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = Path(address_of(project, None))
    until(lambda: journal.exists() and journal.read_text(encoding="utf-8").count(f'"{RECORD}"') >= 2)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    command += ["--json", "found.json", "--promote"]
    done = subprocess.run(command, cwd=project.root, env=own, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((project.root / "found.json").read_text(encoding="utf-8"))
    assert found["trials"] == 6 == sum(found["states"].values())
    assert set(found["states"]) <= {"complete", "pruned"}
    assert found["epochs_trained"] < found["epochs_asked"]
    assert found["workers"] == 2 and found["seconds"] > 0
    best = load(project.root / "tuning" / found["name"] / "best.yaml")
    assert str(best.mixing.warm_up if best.mixing else None) == found["best"]["params"]["mixing.warm_up"]
    promoted = project.root / "runs" / f"tuned-{found['name']}"
    assert (promoted / "model.onnx").exists()
    assert load(promoted / "params.yaml").tuning.space == best.tuning.space
    assert "generalist version 1" in done.stdout
    runs = _nested_runs(project)
    assert sorted(runs) == sorted([*range(6), 0, 1])  # those of the search, and the seeds


def _nested_runs(workspace: Workspace) -> list[int]:
    from pipelines.tracking import connect, experiment_id

    client = connect(workspace)
    runs = client.search_runs([experiment_id(workspace, client)])
    return [int(run.data.tags["generalist.trial"]) for run in runs if "generalist.trial" in run.data.tags]


def test_a_dead_worker_s_trial_waits_again_with_what_it_had(project: Workspace) -> None:
    """Its number, its point, what it reported."""
    found = search(project, trials=1)
    worker = Worker(found)
    trial = found.next(worker)
    assert trial is not None
    point = found.space.suggest(trial)
    trial.report(0.5, 1)
    assert found.requeue_stale() == []  # it lives
    worker.close()
    assert found.requeue_stale() == [0]
    (waiting,) = found.trials(TrialState.WAITING)
    assert (waiting.params, waiting.intermediate_values) == (point, {1: 0.5})
    next_one = Worker(found)
    taken = found.next(next_one)
    assert taken is not None and taken.number == 0
    assert found.space.suggest(taken) == point
    assert found.next(next_one) is None
    next_one.close()


def test_a_silent_worker_of_another_machine_counts_as_dead(project: Workspace) -> None:
    """After a minute without a sign of life; locks of other machines say nothing here."""
    found = search(project, trials=1)
    worker = Worker(found)
    trial = found.next(worker)
    assert trial is not None
    sign = {**worker.heartbeat(), "host": "elsewhere"}
    trial.set_user_attr("worker", {**sign, "alive": time.time() - 30})
    assert found.requeue_stale() == []
    trial.set_user_attr("worker", {**sign, "alive": time.time() - 90})
    assert found.requeue_stale() == [0]
    worker.close()
