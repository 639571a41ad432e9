"""What a Prefect flow needs around it: no noise, and a server that is there quickly and leaves with its run.

Prefect's own temporary server starts only when the flow does, and first imports the whole server into the flow's
process. Ours runs the same application, but in a process of its own from the first moment, beside the imports of
torch and Prefect, and ends with its parent, however that ends.
"""

import logging
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from generalist.errors import BadInput
from generalist.masking import masked_address
from pipelines.error_reporting import telling
from pipelines.locks import make_folder
from pipelines.orchestration.prefect_database import check, home, migrate
from pipelines.orchestration.server_auth import CORS, RETRIES, URL, check_admitted, given, proof, secured
from pipelines.workspace import Workspace, quiet_telemetry

__all__ = ["answers", "check", "home", "migrate", "quiet", "server"]

_SERVER_ANSWERS_WITHIN = 1.0  # seconds, of a server that the user started
_TEMPORARY_STARTS_WITHIN = 300.0  # seconds; 7 are usual, 20 the first time, much more on a busy machine
_ENDS_WITHIN = 5.0  # seconds
_RETRIES = "2"
"""After 2 and 4 s; by Prefect's default the end of a process whose server was killed takes minutes, a message each."""
_PROGRAM = "pipelines.orchestration.server_program"


def quiet(workspace: Workspace) -> None:
    """Set Prefect's environment for this process and its children, where the user has not; before Prefect is imported.

    What Prefect logs goes to its server all the same; the console belongs to our own lines.
    """
    quiet_telemetry()
    os.environ.setdefault("PREFECT_HOME", str(workspace.prefect_home))
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")


def answers(url: str, *, within: float) -> bool:
    """Return whether a Prefect API answers at `url` within some seconds."""
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=within):  # noqa: S310  the user's own address
            return True
    except urllib.error.HTTPError as error:
        return error.code in (401, 403)  # it answers, and will ask Prefect's client who we are
    except (OSError, ValueError):
        return False


@contextmanager
def server(workspace: Workspace, *, warn: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Provide a Prefect server for the flows inside: the one that `PREFECT_API_URL` names, or a temporary one.

    Gives a function that waits until the server is ready. Import `pipelines.flows` first, then call it:

        with server(workspace, warn=print) as ready:
            from pipelines import flows
            ready()
            flows.run(...)

    Args:
        workspace: whose Prefect database the temporary server uses.
        warn: is told if the named server does not answer and a temporary one is used instead.

    Raises:
        BadInput: Prefect's database can't be written, or the temporary server does not start; from the function that
            waits, also that the named server doesn't admit us.
    """
    quiet(workspace)
    named = os.environ.get(URL, "").strip()
    if named and answers(named, within=_SERVER_ANSWERS_WITHIN):
        yield partial(check_admitted, named)
        return
    if named:
        address = masked_address(named)
        warn(f"no Prefect server answers at {address}: using a temporary one (unset {URL}, or start it: make serve)")
    check(Path(os.environ["PREFECT_HOME"]))
    with ExitStack() as stack:
        stack.enter_context(secured())
        temporary = stack.enter_context(_Temporary(workspace))
        stack.enter_context(given({URL: temporary.url, RETRIES: os.environ.get(RETRIES, _RETRIES)}))

        def ready() -> None:
            temporary.wait()
            stack.enter_context(_no_heartbeats())

        try:
            yield ready
        finally:
            with telling():
                _send_pending()


class _Temporary:
    """A server in a child process that listens on a free port of this machine alone."""

    def __init__(self, workspace: Workspace) -> None:
        self._log = make_folder(workspace.work / "logs") / "prefect-temporary.log"
        self._ready = False
        # The child inherits a listening socket: no program can take the port before it, and early requests wait.
        with socket.create_server(("127.0.0.1", 0)) as listening, self._log.open("wb") as log:
            origin = f"http://127.0.0.1:{listening.getsockname()[1]}"
            self.url = f"{origin}/api"
            self._process = subprocess.Popen(  # noqa: S603  ourselves
                [sys.executable, "-m", _PROGRAM, "temporary", str(listening.fileno())],
                env=os.environ | {CORS: origin},
                stdin=subprocess.PIPE,  # its end, also by our death, is the child's sign to stop
                stdout=log,
                stderr=log,
                pass_fds=[listening.fileno()],
                start_new_session=True,  # Ctrl-C is for us; Prefect still has to tell the server about it
            )
        # The first answer takes longer than later ones, so it is asked for before one is needed.
        threading.Thread(target=_request_page, args=(f"{self.url}/admin/version",), daemon=True).start()

    def wait(self) -> None:
        """Return once the server answers.

        Raises:
            BadInput: it ended, or did not answer in time.
        """
        until = time.monotonic() + _TEMPORARY_STARTS_WITHIN
        while self._process.poll() is None and time.monotonic() < until:
            if answers(self.url, within=max(1.0, until - time.monotonic())):
                self._ready = True
                return
        check(Path(os.environ["PREFECT_HOME"]))
        raise BadInput(f"Prefect's temporary server did not start: {self._log} says why")

    def __enter__(self) -> "_Temporary":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        if not self._ready:  # it holds nothing worth waiting for, and migrations are made whole or not at all
            self._process.kill()
        try:
            self._process.wait(_ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _request_page(url: str) -> None:
    request = urllib.request.Request(url, headers=proof())  # noqa: S310  ourselves
    with suppress(OSError), urllib.request.urlopen(request, timeout=_TEMPORARY_STARTS_WITHIN):  # noqa: S310  as above
        pass


def _no_heartbeats() -> AbstractContextManager[object]:
    """Switch off heartbeats, which delay a flow's end by up to a second: a server that ends with it needs none."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    return temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})


def _send_pending() -> None:
    """Let Prefect's background threads send their last logs and events while there is a server; what can't is dropped.

    The last message to the user is the command's own.
    """
    logging.raiseExceptions = False
    if "prefect" in sys.modules:
        from prefect.events.worker import EventsWorker
        from prefect.logging.handlers import APILogHandler

        APILogHandler().flush()
        EventsWorker.drain_all(timeout=_ENDS_WITHIN)  # on the way are the states of tasks
