"""Running `dvc repro` as a child, and being run by DVC."""

import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import typer

from generalist.errors import BadInput
from pipelines.ahead import import_all
from pipelines.cli.shell import CODE, GO_ON
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


def check_repository(folder: Path) -> None:
    """Say that DVC can't work here, before it does so with a number of its own.

    Raises:
        BadInput: there is no DVC project, or no git repository that it is part of.
    """
    if not (folder / ".dvc").is_dir():
        raise BadInput(f"{folder} is no DVC project: run `dvc init` there, or train without it by `generalist train`")
    files = (folder / ".dvc" / name for name in ("config", "config.local"))
    alone = any("no_scm = true" in file.read_text(encoding="utf-8").lower() for file in files if file.is_file())
    if not alone and not any((above / ".git").exists() for above in (folder, *folder.parents)):
        raise BadInput(
            f"{folder} is in no git repository, which DVC needs: run `git init` there and commit, or"
            " `dvc config core.no_scm true`, or train without DVC by `generalist train`"
        )


@contextmanager
def ready(workspace: Workspace) -> Iterator[Callable[[], None]]:
    """Start DVC, which reads its own code beside the block and waits for the function given: that runs `dvc repro`.

    This environment's programs come first on its PATH. Where the block never calls the function, DVC does nothing.

    Raises:
        typer.Exit: from that function, a stage failed; it has said why.
    """
    programs = Path(sys.executable).parent
    scratch = tempfile.TemporaryDirectory()
    ended = Path(scratch.name) / "exit code"
    own = {"PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}", GO_ON: "", CODE: str(ended)}
    environment = os.environ | own
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
            raise typer.Exit(int(ended.read_text(encoding="ascii")) if ended.is_file() else code)

    try:
        yield reproduce
    except KeyboardInterrupt:
        if begun:
            _stop(process)
        raise
    finally:
        scratch.cleanup()
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
