"""The databases of Prefect and MLflow, made while something else is done: the first time that takes half a minute."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.workspace import Workspace


@contextmanager
def being_made(workspace: "Workspace") -> Iterator[None]:
    """Beside the block, make what is missing; whoever needs it inside the block waits for it.

    A database that is half made when the block ends is left out: the next command makes it.
    """
    home = Path(os.environ.get("PREFECT_HOME", workspace.prefect_home))
    if (home / "prefect.db").exists():
        yield
        return
    process = subprocess.Popen(  # noqa: S603  ourselves
        [sys.executable, "-m", "pipelines.following", __name__],
        stdin=subprocess.PIPE,  # its end, also by our death, is the child's
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # whoever needs a database tells what is wrong with it
        start_new_session=True,
    )
    try:
        yield
    finally:
        process.kill()
        process.communicate()


def _make() -> None:
    from pipelines import orchestration
    from pipelines.tracking.database import migrate
    from pipelines.workspace import Workspace

    workspace = Workspace.find()
    orchestration.quiet(workspace)
    if not os.environ.get("PREFECT_API_URL"):
        orchestration.migrate(orchestration.home())
    migrate(workspace)


if __name__ == "__main__":
    _make()
