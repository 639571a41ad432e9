"""How commands end: wrong input in one sentence and exit code 2, Ctrl-C within seconds and with the way to go on."""

import atexit
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from generalist.errors import BadInput
from generalist.masking import masked, masked_address
from generalist.untrusted import lines

WRONG_INPUT, INTERRUPTED = 2, 130  # exit codes; 130 is what shells give for a program ended by Ctrl-C
CODE = "GENERALIST_EXIT_CODE"
"""Environment variable: the file to which a stage writes its exit code, as DVC has one of its own for all failures."""
GO_ON = "GENERALIST_GO_ON"
"""Environment variable: the command that goes on, told to a child; empty if its parent will say it."""
_STOPS_WITHIN = 4.0  # seconds


class Commands(TyperGroup):
    """Commands whose wrong input is told in one sentence, without a traceback."""

    def invoke(self, context: Any) -> Any:
        try:
            return super().invoke(context)
        except BadInput as error:
            tell(str(error))
            raise typer.Exit(WRONG_INPUT) from None
        except Exception as error:
            if (message := _database_message(error)) is None:
                raise
            tell(message)
            raise typer.Exit(WRONG_INPUT) from None


def _database_message(error: Exception) -> str | None:
    """Return what the failure of a database comes to, that of Prefect's server's, too; None for any other failure."""
    from pipelines.cli.database_commands import trouble

    return trouble(error)


def new_app(**options: Any) -> typer.Typer:
    """Return an application without shell completion, and with Python's own tracebacks for what is our fault."""
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, **options)


def tell(text: str) -> None:
    """Write a line for people to standard error; names and text from elsewhere can't move cursors or hide passwords."""
    with suppress(OSError):  # the reader is gone, or the disk is full: what is told is true all the same
        typer.echo(lines(masked(text)), err=True)


def say(text: str) -> None:
    """Print the same on standard output.

    Raises:
        BadInput: it can't be written.
    """
    with printing():
        typer.echo(lines(text))


@contextmanager
def printing() -> Iterator[None]:
    """Watch what is written to standard output inside.

    Raises:
        BadInput: it can't be written, as on a full disk.
        BrokenPipeError: the reader is gone.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise BadInput(f"standard output can't be written ({error.strerror}): make room on that disk") from None


def starting(what: str) -> None:
    """Say at once that a command has begun, where the libraries that it needs take seconds to import."""
    if "torch" not in sys.modules:
        tell(f"{what}; the libraries take some seconds to start")


def told_by_parent() -> bool:
    """Return whether the command that runs this one as a stage says at the end what came of it."""
    return os.environ.get(GO_ON) == ""


def same_command() -> str:
    """Return the command as it was typed, but for passwords."""
    return shlex.join(["generalist", *map(masked_address, sys.argv[1:])])


def leave(code: int | str | None) -> NoReturn:
    """End the process with that code, or that message and code 1, without taking modules apart.

    Python takes seconds to do that after torch, Prefect and MLflow, and nothing comes of it.
    """
    if isinstance(code, str):
        tell(code)
        code = 1
    atexit._run_exitfuncs()
    with suppress(OSError):  # the reader is gone
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code or 0)


@contextmanager
def going_on(command: str, *, within: float | None = None) -> Iterator[None]:
    """Say which command resumes the work inside, whatever ends it but wrong input.

    Ctrl-C and SIGTERM end it within seconds, also while threads of it compute: what they were writing is written
    whole or not at all, so nothing is lost by not waiting for them.

    Args:
        command: the command.
        within: seconds, at most; more than the usual ones for work that first has to end a child.
    """
    farewell = _Farewell(os.environ.get(GO_ON, command), within or _STOPS_WITHIN)
    before = {number: signal.signal(number, farewell.stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        farewell.say(interrupted=True)
        raise typer.Exit(INTERRUPTED) from None
    except BadInput:
        raise  # its sentence says how to go on
    except typer.Exit as end:
        if end.exit_code:
            farewell.say()
        raise
    except BaseException as error:
        if isinstance(error, Exception) and (message := _database_message(error)):
            raise BadInput(message) from None
        farewell.say()
        raise
    finally:
        if not farewell.stopping:  # else the user may insist
            for number, handler in before.items():
                signal.signal(number, handler)


class _Farewell:
    """The last words, said once, and the end that follows them."""

    def __init__(self, command: str, within: float) -> None:
        self._command, self._within, self._once = command, within, threading.Lock()
        self.stopping = False

    def say(self, *, interrupted: bool = False) -> None:
        if self._once.acquire(blocking=False) and self._command:
            after = "\n" if interrupted and sys.stderr.isatty() else ""  # terminals show ^C where the cursor is
            tell(f"{after}go on with: {self._command}")

    def stop(self, _number: int, _frame: FrameType | None) -> NoReturn:
        if self.stopping:  # the user insists
            self._end()
        self.stopping = True
        # Python waits for its threads when it ends, so this goes on after `going_on` is left.
        watch = threading.Timer(self._within, self._end)
        watch.daemon = True
        watch.start()
        raise KeyboardInterrupt

    def _end(self) -> NoReturn:
        self.say(interrupted=True)
        os._exit(INTERRUPTED)
