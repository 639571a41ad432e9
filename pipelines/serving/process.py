"""One of the processes that `generalist serve` keeps up: a Python module with children of its own, and its log."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from generalist.errors import BadInput

_ENDS_WITHIN = 5.0  # seconds, when asked to


class Process:
    """A Python module that runs in a process group of its own, so that Ctrl-C doesn't reach it and all of it ends.

    It also ends when this process is killed.

    Attributes:
        name: for people.
        log: where its output goes.
    """

    def __init__(self, name: str, module: list[str], environment: dict[str, str], log: Path, *, folder: Path) -> None:
        """Start it.

        Args:
            name: for people.
            module: the module, then its arguments.
            environment: all of it.
            log: is begun anew.
            folder: where it runs.

        Raises:
            BadInput: the log can't be written.
        """
        self.name, self.log = name, log
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            output = log.open("wb")
        except OSError as error:
            raise BadInput(f"{log} can't be written ({error.strerror}): make its folder writable") from None
        with output:
            self._process = subprocess.Popen(  # noqa: S603  modules of ours
                [sys.executable, "-m", "pipelines.following", *module],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,  # its end, also by our death, ends all of it
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def ended(self) -> bool:
        """Whether it ended, by itself or as asked."""
        return self._process.poll() is not None

    def end(self) -> None:
        """End it and all of its children; those that don't go when asked are killed."""
        try:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, number)
                if self._is_gone(within=_ENDS_WITHIN):
                    return
        finally:
            assert self._process.stdin is not None  # it is a pipe
            self._process.stdin.close()

    def _is_gone(self, *, within: float) -> bool:
        """Return whether nothing of its group is left, after at most some seconds."""
        until = time.monotonic() + within
        while time.monotonic() < until:
            self._process.poll()
            try:
                os.killpg(self._process.pid, 0)
            except ProcessLookupError:
                return True
            time.sleep(0.05)
        return False


def answers(url: str) -> bool:
    """Return whether something answers at `url` at once, and well."""
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310  an address of ours
            return True
    except OSError:
        return False
