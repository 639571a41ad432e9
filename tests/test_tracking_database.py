"""MLflow's database: whole or not there, and refused at once where it can't be used."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from generalist.errors import BadInput
from pipelines.tracking import connect, experiment_id, migrate
from pipelines.workspace import Workspace
from tests import processes


@pytest.mark.long
@processes.forking
def test_a_killed_migration_leaves_nothing_broken(tmp_path: Path) -> None:
    """`kill -9` while the database is made: it is not there, the rest is cleared away, the next one is whole."""
    place = Workspace(tmp_path, tmp_path)
    with processes.another_process(lambda: migrate(place)):
        processes.until(lambda: any(path.stat().st_size for path in tmp_path.glob(".mlflow.db.*.part")))
    assert not (tmp_path / "mlflow.db").exists()
    (tmp_path / "mlflow.db").touch()  # an empty file is no database either
    assert connect(place).get_experiment("0").artifact_location == str(tmp_path / "mlruns" / "0")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".generalist", "mlflow.db"]


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """At once: MLflow itself would try for minutes."""
    (tmp_path / "mlflow.db").write_text("not a database", encoding="utf-8")
    with pytest.raises(BadInput, match="is not an SQLite database: move it away"):
        migrate(Workspace(tmp_path, tmp_path))


def test_a_folder_in_place_of_the_database_is_refused(tmp_path: Path) -> None:
    """It can't be read as a file."""
    (tmp_path / "mlflow.db").mkdir()
    with pytest.raises(BadInput, match=r"mlflow\.db can't be read"):
        migrate(Workspace(tmp_path, tmp_path))


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file where the database's folder should be."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///file/below/mlflow.db")
    with pytest.raises(BadInput, match=r"can't be (made|read)"):
        migrate(Workspace(tmp_path, tmp_path))


def test_a_damaged_database_is_refused(workspace: Workspace) -> None:
    """As an older MLflow, or a migration by hand that was killed, would leave it."""
    with sqlite3.connect(workspace.root / "mlflow.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    database.close()
    with pytest.raises(BadInput, match=r"can't open .*out-of-date.*mlflow db upgrade"):
        connect(workspace)


def test_a_server_that_does_not_answer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once: MLflow itself would try for minutes."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(BadInput, match=r"no MLflow server answers at http://127\.0\.0\.1:9: start it"):
        connect(Workspace(tmp_path, tmp_path))


def test_a_deleted_experiment_is_refused(workspace: Workspace, client: MlflowClient) -> None:
    """It says how to restore it."""
    number = experiment_id(workspace, client)
    client.delete_experiment(number)
    with pytest.raises(BadInput, match=f"was deleted: run `mlflow experiments restore --experiment-id {number}`"):
        experiment_id(workspace, client)


def test_a_copied_project_does_not_write_into_the_original(workspace: Workspace, client: MlflowClient) -> None:
    """MLflow notes absolute paths, so a database belongs to the folder in which it was made."""
    experiment_id(workspace, client)
    copy = workspace.root / "copy"
    copy.mkdir()
    (copy / "mlflow.db").write_bytes((workspace.root / "mlflow.db").read_bytes())
    moved = Workspace(copy, copy)
    with pytest.raises(BadInput, match=f"belongs to the project in {workspace.root}, where"):
        experiment_id(moved, connect(moved))


def test_a_server_decides_where_files_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The experiment of a server gets no path of this machine; its runs have pages."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example/")
    asked: dict[str, Any] = {}

    class Server:
        tracking_uri = "https://mlflow.example/"

        def get_experiment_by_name(self, name: str) -> None:
            return None

        def create_experiment(self, name: str, artifact_location: str | None) -> str:
            asked.update(name=name, artifact_location=artifact_location)
            return "12"

    assert experiment_id(Workspace(tmp_path, tmp_path), Server()) == "12"  # type: ignore[arg-type]
    assert asked == {"name": "generalist", "artifact_location": None}
