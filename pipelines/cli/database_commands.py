"""The databases of Prefect and MLflow, made while something else is done: the first time that takes half a minute."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from generalist.errors import BadInput
from generalist.masking import masked_address
from pipelines.cli.shell import say
from pipelines.end_with_parent import Child

if TYPE_CHECKING:
    from pipelines.workspace import Workspace


def relocate() -> None:
    """Update the paths of runs and models after the project was moved.

    MLflow stores absolute paths; those that lead to the old folder are changed to lead to this one.
    """
    from pipelines import tracking
    from pipelines.workspace import Workspace

    workspace = Workspace.find()
    before, count = tracking.relocate(workspace)
    if count:
        say(f"{count} places of MLflow's files changed from {before} to {workspace.root}")
    else:
        say(f"MLflow's files are where its database says, in {workspace.root}")


@contextmanager
def being_made(workspace: "Workspace") -> Iterator[None]:
    """Make what is missing beside the block; what needs it inside the block waits for it.

    A database that is half made when the block ends is left out: the next command makes it.
    """
    home = Path(os.environ.get("PREFECT_HOME", workspace.prefect_home))
    if (home / "prefect.db").exists():
        yield
        return
    # Whoever needs a database tells what is wrong with it.
    child = Child("databases", [__name__], os.environ, Path(os.devnull))
    try:
        yield
    finally:
        child.end(ask=None)


def trouble(error: Exception) -> str | None:
    """Return the sentence for a database's failure: full, locked, or not to be written; None for any other failure."""
    from pipelines.database_errors import sentence
    from pipelines.workspace import Workspace

    workspace = Workspace.find()
    kinds = {cause.partition(".")[0] for cause in _modules(error)}
    try:
        if "mlflow" in kinds:
            return sentence(error, str(workspace.tracking_database or masked_address(workspace.tracking_uri)))
        if "optuna" in kinds:
            return sentence(error, "the tuning's storage")
        if message := sentence(error, "a database of this project"):
            return message
        if kinds & {"prefect", "httpx"} and "PREFECT_HOME" in os.environ:
            from pipelines.orchestration import check

            check(Path(os.environ["PREFECT_HOME"]))
    except BadInput as refusal:
        return str(refusal)
    return None


def _modules(error: Exception) -> set[str]:
    from pipelines.database_errors import causes

    return {type(cause).__module__ for cause in causes(error)}


def _make() -> None:
    from pipelines import orchestration
    from pipelines.tracking.mlflow_database import migrate
    from pipelines.workspace import Workspace

    workspace = Workspace.find()
    orchestration.quiet(workspace)
    if not os.environ.get("PREFECT_API_URL"):
        orchestration.migrate(orchestration.home())
    migrate(workspace)


if __name__ == "__main__":
    _make()
