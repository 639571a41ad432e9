"""What tests of real servers share: databases that are made once, programs that are started and looked for."""

import contextlib
import hashlib
import os
import random
import shutil
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

ROOT = Path(__file__).parent.parent
MAKERS = (
    "pipelines/orchestration/prefect_database.py",
    "pipelines/tracking/mlflow_database.py",
    "pipelines/workspace.py",
)
MAKE = """
import sys
from pathlib import Path
from pipelines.orchestration import migrate
from pipelines.tracking import migrate as migrate_tracking
from pipelines.workspace import Workspace
home = Path(sys.argv[1])
migrate(home)
migrate_tracking(Workspace(home, home))
"""


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a program that is to find these packages, installed or not."""
    return os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | more


def databases(config: pytest.Config) -> Path:
    """Return a folder with empty databases of Prefect and MLflow.

    Making them takes half a minute, so they are kept from run to run, until the code that makes them changes.
    """
    code = hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in MAKERS)).hexdigest()[:12]
    made = config.cache.mkdir(f"databases-{version('prefect')}-{version('mlflow')}-{code}")
    with FileLock(made.with_suffix(".lock")):  # of several workers one makes them, and the others wait
        if not (made / "whole").exists():
            subprocess.run([sys.executable, "-c", MAKE, str(made)], env=environment(), check=True, timeout=300)
            (made / "whole").touch()
    return made


def with_databases(folder: Path, config: pytest.Config, *, home: Path | None = None) -> Path:
    """Put empty databases of Prefect and MLflow into a project; Prefect's home may be elsewhere."""
    made, home = databases(config), home or folder / ".generalist" / "prefect"
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "prefect.db").exists():
        shutil.copyfile(made / "prefect.db", home / "prefect.db")
    shutil.copyfile(made / "mlflow.db", folder / "mlflow.db")
    return folder


def free_port() -> int:
    """Return a port that nothing listens on just now, and that the system gives no outgoing connection meanwhile."""
    while True:
        port = random.randint(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of all processes that run in a folder or name it."""
    found = []
    for process in psutil.process_iter():
        try:
            told = [process.cwd(), *process.cmdline()]
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
        if process.pid != os.getpid() and any(str(folder) in word for word in told):
            found.append(" ".join(told[1:]))
    return found
