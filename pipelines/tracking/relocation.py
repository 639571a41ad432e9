"""A project whose folder was renamed or moved takes its history along: MLflow notes absolute paths, and has no way to.

Only where files are kept changes, in one transaction of MLflow's SQLite database; runs, models and aliases stay.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

from generalist.errors import BadInput
from pipelines.database_errors import check_database, sentence
from pipelines.tracking.mlflow_database import EXPERIMENT
from pipelines.workspace import Workspace

_PLACES = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}


def relocate(workspace: Workspace) -> tuple[Path, int]:
    """Let a project's database name the files where they lie now; the folder of before, and how many places changed.

    Raises:
        BadInput: the project has no database of its own, its files didn't come along, or it can't be written.
    """
    database = workspace.root / "mlflow.db"
    if workspace.tracking_database != database or not database.is_file():
        raise BadInput(f"there is no MLflow database of this project at {database}, so there is nothing to relocate")
    check_database(database)
    try:
        with closing(sqlite3.connect(database)) as connection, connection:
            cursor = connection.execute("SELECT artifact_location FROM experiments WHERE name = ?", (EXPERIMENT,))
            before = Path((cursor.fetchone() or [str(workspace.artifacts)])[0].removeprefix("file://"))
            if before == workspace.artifacts:
                return before.parent, 0
            runs = connection.execute("SELECT count(*) FROM runs").fetchone()[0]
            if runs and not workspace.artifacts.is_dir():
                raise BadInput(
                    f"{workspace.artifacts} is missing, where the files of {runs} runs should lie: bring it along from"
                    f" {before}"
                )
            return before.parent, _change_places(connection, before, workspace.artifacts)
    except sqlite3.Error as error:
        raise BadInput(sentence(error, str(database)) or f"{database} is no database of MLflow's ({error})") from None


def _change_places(connection: sqlite3.Connection, before: Path, now: Path) -> int:
    count = 0
    for table, columns in _PLACES.items():
        for column in columns:
            for scheme in ("", "file://"):
                old, new = f"{scheme}{before}", f"{scheme}{now}"
                done = connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?)"  # noqa: S608  names of ours
                    f" WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                    (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
                )
                count += done.rowcount
    return count
