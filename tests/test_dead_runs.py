"""Runs whose process was killed: the next start ends them in Prefect, tasks too."""

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from generalist.config import to_yaml
from tests.processes import until
from tests.services import environment, with_databases
from tests.training_factory import small

pytestmark = pytest.mark.long
TRAIN = [sys.executable, "-c", "from pipelines.cli import main; main()", "train"]
UNDER_WAY = {"PENDING", "RUNNING", "CANCELLING"}


def states(project: Path, table: str) -> list[str]:
    """Return the states in Prefect's database."""
    with closing(sqlite3.connect(project / ".generalist" / "prefect" / "prefect.db", timeout=30)) as database:
        return [state for (state,) in database.execute(f"SELECT state_type FROM {table} ORDER BY start_time")]


def runs(project: Path) -> list[tuple[str, str]]:
    """Names and states in MLflow's database."""
    with closing(sqlite3.connect(project / "mlflow.db", timeout=30)) as database:
        return list(database.execute("SELECT name, status FROM runs ORDER BY start_time"))


def test_the_next_training_ends_what_a_killed_one_left(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Of `generalist train` with a server of its own; the flow run has MLflow's name."""
    project = with_databases(tmp_path, pytestconfig)
    (project / "dvc.yaml").touch()
    own = {name: value for name, value in environment().items() if name != "PREFECT_HOME"}
    long, short = (
        to_yaml(small(f"training.epochs={epochs}", "mixing.warm_up=1", "training.batch_size=512"))
        for epochs in (5000, 2)
    )
    (project / "params.yaml").write_text(long, encoding="utf-8")
    with (tmp_path / "said").open("wb") as said:
        killed = subprocess.Popen(TRAIN, cwd=project, env=own, stdout=said, stderr=said)
    until(lambda: killed.poll() is not None or (bool(runs(project)) and "RUNNING" in states(project, "task_run")))
    killed.kill()
    killed.wait(timeout=30)
    (project / "params.yaml").write_text(short, encoding="utf-8")
    done = subprocess.run(TRAIN, cwd=project, env=own, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert states(project, "flow_run")[0] in ("CRASHED", "FAILED")
    assert states(project, "flow_run")[1:] == ["COMPLETED"]
    assert not UNDER_WAY & set(states(project, "task_run"))
    with closing(sqlite3.connect(project / ".generalist" / "prefect" / "prefect.db")) as database:
        names = [name for (name,) in database.execute("SELECT name FROM flow_run ORDER BY start_time")]
        (described,) = database.execute("SELECT description FROM artifact WHERE key = 'results'").fetchone()
    assert names == [name for name, _ in runs(project)]
    assert [status for _, status in runs(project)] == ["KILLED", "FINISHED"]
    assert described


def test_a_run_that_was_killed_before_it_showed_itself_is_ended_by_the_next(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """In the moment between its beginning in Prefect and its own lock; tasks have no tag of it."""
    project = with_databases(tmp_path, pytestconfig)
    (project / "dvc.yaml").touch()
    short = small("training.epochs=2", "mixing.warm_up=1", "training.batch_size=512")
    (project / "params.yaml").write_text(to_yaml(short), encoding="utf-8")
    own = {name: value for name, value in environment().items() if name != "PREFECT_HOME"}
    program = (
        "import os, signal\n"
        "from pipelines.cli import main\n"
        "import pipelines.orchestration as server\n"
        "server.quiet(__import__('pipelines.workspace').workspace.Workspace.find())\n"
        "from pipelines.orchestration import flow_runs\n"
        "flow_runs.begin = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "main()\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", program, "train"], cwd=project, env=own, capture_output=True, timeout=200, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert states(project, "flow_run") == ["RUNNING"]
    done = subprocess.run(TRAIN, cwd=project, env=own, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert states(project, "flow_run") == ["CRASHED", "COMPLETED"]
    assert len(list((project / ".generalist" / "locks").glob("flow-????????-*.lock"))) <= 1  # of the run just now
    with closing(sqlite3.connect(project / ".generalist" / "prefect" / "prefect.db")) as database:
        assert {tags for (tags,) in database.execute("SELECT tags FROM task_run")} == {"[]"}
