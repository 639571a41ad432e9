"""Databases that fill up or that another program holds: one sentence, exit code 2, no traceback."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from generalist.config import to_yaml
from generalist.errors import BadInput
from pipelines import database_errors, orchestration
from pipelines.tracking import connect
from pipelines.workspace import Workspace
from tests.services import environment, with_databases
from tests.training_factory import small


@pytest.fixture
def project(tmp_path: Path, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with databases."""
    monkeypatch.setattr(database_errors, "_PATIENCE", 0.1)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / ".generalist" / "prefect"))
    (tmp_path / "dvc.yaml").touch()
    two = small("training.epochs=2", "mixing.warm_up=1", "training.batch_size=512")
    (tmp_path / "params.yaml").write_text(to_yaml(two), encoding="utf-8")
    return with_databases(tmp_path, pytestconfig)


@pytest.mark.parametrize("name", ["mlflow.db", ".generalist/prefect/prefect.db"])
def test_a_database_that_another_program_holds_is_named(project: Path, name: str) -> None:
    """Nobody is told to move it away."""
    workspace = Workspace(project, project)
    ask = {"mlflow.db": lambda: connect(workspace)}.get(
        name, lambda: orchestration.server(workspace, warn=pytest.fail).__enter__()
    )
    with closing(sqlite3.connect(project / name, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(BadInput, match=f"another program holds {project / name}: end that program, or wait"):
            ask()
        other.execute("ROLLBACK")
    database_errors.check_database(project / name)


@pytest.mark.parametrize("name", ["mlflow.db", ".generalist/prefect/prefect.db"])
def test_a_disk_without_room_is_told(project: Path, name: str) -> None:
    """Before any work; nothing is left beside the database."""
    before = sorted(project.rglob("*"))
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))"
    check = f"from pathlib import Path; from pipelines.database_errors import check_database; check_database(Path({name!r}))"
    done = subprocess.run(
        [sys.executable, "-c", f"{limit}; {check}"],
        cwd=project,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "can't be written" in done.stderr and "make room" in done.stderr
    assert [path for path in project.rglob("*.room") if path not in before] == []


@pytest.mark.long
def test_a_database_that_can_not_be_made_is_one_sentence(tmp_path: Path) -> None:
    """Files may not grow; nothing of it is left, and the next start makes it."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))"
    make = "from pathlib import Path; from pipelines.orchestration import migrate; migrate(Path('home'))"
    done = subprocess.run(
        [sys.executable, "-c", f"{limit}; {make}"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert "BadInput: Prefect's database can't be made in home" in done.stderr.splitlines()[-1]
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["prefect.db.lock"]


@pytest.mark.long
def test_a_database_that_fills_up_while_a_training_runs_is_one_sentence(project: Path) -> None:
    """As on a full disk: files may not grow any more, and MLflow's would."""
    size = (project / "mlflow.db").stat().st_size
    other = project / ".generalist" / "prefect" / "prefect.db"
    program = (
        "import resource\n"
        "from pipelines import flows\n"
        "from pipelines.cli import main\n"
        "was = flows.start\n"
        "def full(*given, **named):\n"
        f"    resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))\n"
        "    return was(*given, **named)\n"
        "flows.start = full\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "train"],
        cwd=project,
        # The program imports flows, and so Prefect, before the command could quiet it.
        env=environment(PREFECT_HOME=str(other.parent), PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL="CRITICAL"),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert f"{project}/mlflow.db" in done.stderr.splitlines()[-1], done.stderr
    assert "make room" in done.stderr.splitlines()[-1]
