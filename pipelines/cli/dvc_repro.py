"""Running `dvc repro` as a child, and being run by DVC."""

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

import typer

from generalist.errors import BadInput
from pipelines.cli.shell import CODE, GO_ON
from pipelines.end_with_parent import Child
from pipelines.locks import busy
from pipelines.workspace import Workspace

ENDS_WITHIN = 10.0  # seconds: a stage ends within five, and DVC after it


def run_command() -> str:
    """Return how this program's `run` was called."""
    return "make run" if os.environ.get("MAKELEVEL") else "generalist run"


def dvc_command() -> str | None:
    """Return the DVC command that runs this process as a stage, if one does."""
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
def alone(workspace: Workspace) -> Iterator[None]:
    """Be the only one that works through DVC's stages, which may go on where their DVC was killed.

    Raises:
        BadInput: another process works at them: which, and for how long.
    """
    with workspace.alone("run", "`generalist run`", "is under way"):
        with workspace.stage(), workspace.lock(workspace.outputs):
            _check_dvc(workspace.here)
        yield


def _check_dvc(folder: Path) -> None:
    """Say that another DVC works here, before this one does so with a number of its own; forget those that ended.

    DVC takes a killed process for alive until its parent has heard of its end, or where another has its number.
    """
    import psutil

    held = folder / ".dvc" / "tmp" / "rwlock"
    try:
        locks, since = json.loads(held.read_text(encoding="utf-8")), held.stat().st_mtime
        infos = [*locks.get("write", {}).values(), *chain.from_iterable(locks.get("read", {}).values())]
        pids = {int(info["pid"]) for info in infos}
    except (OSError, ValueError, AttributeError, LookupError, TypeError):  # none, or DVC itself will judge it
        return
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            holder = psutil.Process(pid)
            if holder.status() != psutil.STATUS_ZOMBIE and holder.create_time() <= since:
                raise BadInput(busy("DVC", "works here", pid=pid, seconds=time.time() - holder.create_time()))
    if pids:
        held.unlink(missing_ok=True)


def reproduce(workspace: Workspace) -> None:
    """Run `dvc repro`; this environment's programs come first on its PATH.

    Raises:
        BadInput: DVC was killed.
        typer.Exit: a stage failed; it has said why.
    """
    programs = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as scratch:
        ended = Path(scratch) / "exit code"
        variables = {"PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}", GO_ON: "", CODE: str(ended)}
        dvc = Child("DVC", ["dvc", "repro"], os.environ | variables, folder=workspace.here)
        try:
            from pipelines.cli import tables  # noqa: F401  what comes afterwards takes seconds: while DVC works

            code = dvc.wait()
        except KeyboardInterrupt:
            dvc.end(ask=signal.SIGINT, within=ENDS_WITHIN)  # as Ctrl-C would
            raise
        except BaseException:
            dvc.end(ask=None)
            raise
        if code < 0:
            dvc.end(ask=None)
            raise BadInput(
                f"DVC was ended by signal {-code} ({signal.strsignal(-code)}), and its stage with it; go on with:"
                f" {run_command()}"
            )
        if code:
            raise typer.Exit(int(ended.read_text(encoding="ascii")) if ended.is_file() else code)
