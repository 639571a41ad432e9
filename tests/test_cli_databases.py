"""The databases that are made beside other work."""

from pathlib import Path

import psutil
import pytest

from pipelines.cli.database_commands import being_made
from pipelines.workspace import Workspace
from tests.processes import until

pytestmark = pytest.mark.long


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A project without databases."""
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    return Workspace.find()


def test_both_are_made_beside_the_block(workspace: Workspace) -> None:
    """Whole, under their names; the second time there is nothing to do."""
    made = [workspace.root / "prefect" / "prefect.db", workspace.root / "mlflow.db"]
    with being_made(workspace):
        until(lambda: all(path.exists() for path in made))
    before = set(psutil.Process().children())
    with being_made(workspace):
        assert set(psutil.Process().children()) == before
    assert not list(workspace.root.glob("prefect/.*.part*")) + list(workspace.root.glob(".mlflow.db*"))


def test_a_short_block_leaves_no_half_of_one(workspace: Workspace) -> None:
    """Nor a process."""
    before = set(psutil.Process().children())
    with being_made(workspace):
        assert len(set(psutil.Process().children()) - before) == 1
    assert set(psutil.Process().children()) == before
    assert not (workspace.root / "prefect" / "prefect.db").exists()
    assert not (workspace.root / "mlflow.db").exists()
