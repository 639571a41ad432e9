"""Running `dvc repro` as a child, and being run by DVC."""

import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import typer

from pipelines.ahead import import_all
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


@contextmanager
def ready(workspace: Workspace) -> Iterator[Callable[[], None]]:
    """Start DVC, which reads its own code beside the block and waits for the function given: that runs `dvc repro`.

    This environment's programs come first on its PATH. Where the block never calls the function, DVC does nothing.

    Raises:
        typer.Exit: from that function, a stage failed; it has said why.
    """
    programs = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}", GO_ON: ""}
    told, gate = os.pipe()
    process = subprocess.Popen(  # noqa: S603  ourselves
        [sys.executable, "-m", __name__, str(told)],
        cwd=workspace.here,
        env=environment,
        pass_fds=[told],
        start_new_session=True,  # however we are stopped, all of it is
    )
    os.close(told)
    begun = False

    def reproduce() -> None:
        nonlocal begun
        begun = True
        with suppress(BrokenPipeError):  # it has ended: its exit code is told below
            os.write(gate, b"go")
        if code := process.wait():
            raise typer.Exit(code)

    try:
        yield reproduce
    except KeyboardInterrupt:
        if begun:
            _stop(process)
        raise
    finally:
        os.close(gate)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End DVC and the stage that it runs, as Ctrl-C would."""
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(ENDS_WITHIN)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _repro_when_told(descriptor: int) -> None:
    import_all("dvc.cli", "dvc.commands.repro", "dvc.repo")
    with os.fdopen(descriptor, "rb") as gate:
        if not gate.read(1):
            return
    sys.argv = ["dvc", "repro"]
    runpy.run_module("dvc", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _repro_when_told(int(sys.argv[1]))
