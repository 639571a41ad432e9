"""Running `dvc repro` as a child, and being run by DVC."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import typer

from pipelines.cli.shell import GO_ON
from pipelines.workspace import Workspace

ENDS_WITHIN = 10.0  # seconds: a stage ends within five, and DVC after it


def run_command() -> str:
    """How this program's `run` was called."""
    return "make run" if os.environ.get("MAKELEVEL") else "generalist run"


def dvc_command() -> str | None:
    """The DVC command that runs this process as a stage, if one does."""
    if "DVC_STAGE" not in os.environ:
        return None
    return "dvc exp run, with the same options" if "DVC_EXP_NAME" in os.environ else "dvc repro"


def reproduce(workspace: Workspace) -> None:
    """Run `dvc repro` in a workspace, with this environment's programs first on the PATH.

    Raises:
        typer.Exit: a stage failed; it has said why.
    """
    programs = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}", GO_ON: ""}
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=workspace.here,
        env=environment,
        start_new_session=True,  # however we are stopped, all of it is
    )
    try:
        code = process.wait()
    except KeyboardInterrupt:
        _stop(process)
        raise
    if code:
        raise typer.Exit(code)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End DVC and the stage that it runs, as Ctrl-C would."""
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(ENDS_WITHIN)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
