"""Runs a module whose process group ends with the process that started it, even a killed one; and starts such modules.

python -m pipelines.end_with_parent MODULE ARGUMENT..., with a pipe as standard input that its parent keeps open.
"""

import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import BinaryIO

from generalist.errors import BadInput
from generalist.masking import masked

_ENDS_WITHIN = 5.0  # seconds, when asked to


class Child:
    """A Python module that runs in a process group of its own, so that Ctrl-C doesn't reach it and all of it ends.

    It also ends when this process is killed.

    Attributes:
        name: for people.
        log: where its output goes; None where it goes to our own.
    """

    def __init__(
        self,
        name: str,
        module: Sequence[str],
        environment: Mapping[str, str],
        log: Path | None = None,
        *,
        folder: Path | None = None,
    ) -> None:
        """Start it.

        Args:
            name: for people.
            module: the module, then its arguments.
            environment: all of it.
            log: for its output, begun anew; by default that goes where ours goes.
            folder: where it runs; by default here.

        Raises:
            BadInput: the log can't be written.
        """
        self.name, self.log = name, log
        with nullcontext() if log is None else _open_log(log) as output:
            self._process = subprocess.Popen(  # noqa: S603  modules of ours
                [sys.executable, "-m", "pipelines.end_with_parent", *module],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,  # its end, also by our death, ends all of it
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        assert self._process.stdin is not None  # it is a pipe
        self._input = self._process.stdin

    def poll(self) -> int | None:
        """Return its exit code; None while it runs."""
        code = self._process.poll()
        if code is not None:
            self._input.close()
        return code

    def wait(self) -> int:
        """Return its exit code, once it has ended."""
        self._process.wait()
        return self.poll() or 0

    def end(self, *, ask: signal.Signals | None = signal.SIGTERM, within: float | None = None) -> None:
        """End it and all of its children: by a signal that asks them to, then those that are left by SIGKILL.

        Args:
            ask: that signal; None kills at once.
            within: seconds in which those that were asked have to go.
        """
        try:
            for number in (ask, signal.SIGKILL) if ask else (signal.SIGKILL,):
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, number)
                if self._is_gone(within=within or _ENDS_WITHIN):
                    return
        finally:
            self._input.close()

    def last_log_line(self) -> str:
        """Return the last line of its log that says something, without passwords."""
        assert self.log is not None  # whoever asks gave it one
        written = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        return masked(next((line.strip() for line in reversed(written) if line.strip()), "nothing"))

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


def _open_log(log: Path) -> BinaryIO:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return log.open("wb")
    except OSError as error:
        raise BadInput(f"{log} can't be written ({error.strerror}): make its folder writable") from None


def _follow_parent() -> None:
    """Kill this process's group once the other end of its input is closed, which a process's death does for certain.

    Children of children end, too. They are not asked to: a process that was killed could not ask them either.
    """

    def wait() -> None:
        while os.read(0, 1):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    _follow_parent()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
