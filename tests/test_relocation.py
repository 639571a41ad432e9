"""A project whose folder was renamed keeps its runs, its registry and their files by `generalist relocate`."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.registry import register
from pipelines.tracking import connect, experiment_id
from pipelines.workspace import Workspace
from tests import tracking_factory as factory
from tests.command_line import generalist, refused
from tests.services import environment


@pytest.fixture
def renamed(tmp_path: Path, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch, tried_here: None) -> Path:
    """A project with a champion, under another name than it was made."""
    before, now = tmp_path / "before's", tmp_path / "now 100"
    before.mkdir()
    (before / "dvc.yaml").touch()
    results = factory.Model(seed=1).write(before / "outputs")
    assert register(factory.workspace(before, pytestconfig), results, data=lambda _: factory.DATA).version == 1
    before.rename(now)
    monkeypatch.chdir(now)
    return now


@pytest.mark.long
def test_a_renamed_project_takes_its_history_along(renamed: Path) -> None:
    """The refusal names the command; then champion and runs are found, files can be downloaded, and more registered."""
    model = (renamed / "outputs" / "model.onnx").read_bytes()
    assert "run `generalist relocate` to take runs and registry along" in refused("register")
    told = generalist("relocate")
    assert told.exit_code == 0, told.output
    assert f"from {renamed.parent}/before's to {renamed}" in told.stdout
    # MLflow keeps what it opened, so another process asks, as a user's next command does.
    done = subprocess.run(
        [sys.executable, "-c", "from pipelines.cli import main; main()", "download", "--output", "champion.onnx"],
        cwd=renamed,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (renamed / "champion.onnx").read_bytes() == model
    workspace = Workspace.find()
    client = connect(workspace)
    (run,) = client.search_runs([experiment_id(workspace, client)])
    assert (Path(client.download_artifacts(run.info.run_id, "report.html"))).read_text(encoding="utf-8")
    assert "registered before" in generalist("register").stdout
    better = factory.Model(seed=2, validation=(19, 13)).write(renamed / "better")
    assert register(workspace, better, data=lambda _: factory.DATA).version == 2
    assert not (renamed.parent / "before's").exists()
    assert generalist("relocate").stdout == f"MLflow's files are where its database says, in {renamed}\n"


def test_files_that_did_not_come_along_are_missed(renamed: Path) -> None:
    """Nothing changes then."""
    shutil.move(renamed / "mlruns", renamed / "elsewhere")
    assert "bring it along from" in refused("relocate")
    shutil.move(renamed / "elsewhere", renamed / "mlruns")
    assert generalist("relocate").exit_code == 0


def test_without_a_database_there_is_nothing_to_relocate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence; no database is made."""
    monkeypatch.chdir(tmp_path)
    assert "there is no MLflow database of this project" in refused("relocate")
    assert list(tmp_path.iterdir()) == []
