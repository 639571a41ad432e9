"""`generalist serve`: Prefect's server, what serves the deployment `generalist/train`, and MLflow's pages, together.

All of it listens on this machine's loopback address only. Prefect's server asks for a string that a file of this user's
holds; MLflow's asks for nothing.
"""

import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import NoReturn

from generalist.errors import BadInput
from pipelines.end_with_parent import Child
from pipelines.orchestration import answers, check, migrate, quiet
from pipelines.orchestration.host_guard import allowed_hosts
from pipelines.orchestration.server_auth import CLIENT, CORS, SERVER, URL, kept, secured
from pipelines.serving.deployment import DEPLOYMENTS, abandon_runs, polled_since
from pipelines.workspace import Workspace

STRING = "serve-auth"
"""The file that holds what Prefect's server asks for, while it is up."""
_HOST = "127.0.0.1"
_STARTS_WITHIN = 180.0  # seconds, each; ten are usual
_LOOKS_EVERY = 0.5  # seconds
_ANSWERS_WITHIN = 2.0  # seconds
_WATCHERS_LISTEN = 4.0  # seconds for which `--watch` listens for more after a run's last state; three, and a little


def serve(workspace: Workspace, *, prefect_port: int, mlflow_port: int, say: Callable[[str], None]) -> None:
    """Start everything, say where it is, and keep it up until Ctrl-C or SIGTERM; then end everything, in order.

    Args:
        workspace: whose runs are shown and made.
        prefect_port: where Prefect listens.
        mlflow_port: where MLflow listens; not used where `MLFLOW_TRACKING_URI` names a server.
        say: is told a line for people.

    Raises:
        BadInput: a port is in use, this project is being served already, or a part of it ended on its own.
    """
    ports = {"--prefect-port": prefect_port}
    if workspace.tracking_database is not None:
        ports["--mlflow-port"] = mlflow_port
    check_ports(ports)
    quiet(workspace)
    running: list[Child] = []
    with (
        workspace.alone("serve", "`generalist serve`", "is up in this project"),
        _interruptible(),
        secured() as string,
        kept(string, workspace.work / STRING),
    ):
        try:
            say("starting: Prefect's server, the deployment, MLflow; this takes about 20 seconds")
            _start(workspace, prefect_port, mlflow_port, running, say)
            while True:
                _check(running)
                time.sleep(_LOOKS_EVERY)
        except KeyboardInterrupt:
            say("ending")
        finally:
            _end(running, f"http://{_HOST}:{prefect_port}/api")
    say("ended")


def announcement(*, prefect: str, mlflow: str, logs: Path, string: Path) -> str:
    """Return lines for people: the pages, and what to type in a second shell.

    Args:
        prefect: address of Prefect's pages, whose API is below it.
        mlflow: address of the list of runs.
        logs: folder of the logs.
        string: the file with what Prefect's server asks for.
    """
    programs = shlex.quote(str(Path(sys.executable).parent))
    read = f"cat {shlex.quote(str(string))}"
    return f"""
Prefect   {prefect} (asks for a password: {read})
MLflow    {mlflow}
logs      {logs}

Served are generalist/train, generalist-tune/search and generalist-compare/compare. In a second shell:
  export PREFECT_API_URL={prefect}/api PREFECT_API_AUTH_STRING="$({read})" PATH={programs}:$PATH
  prefect deployment run generalist/train --watch
  prefect deployment run generalist/train --watch --param preset=digits --param 'overrides=["mixing.interval=3"]'
  prefect deployment run generalist-tune/search --watch --param workers=2
  prefect deployment run generalist-compare/compare --watch --param 'presets=["digits", "digits-pgd-at"]'
Trainings write to runs/ID, searches to tuning/NAME, comparisons to comparisons/NAME.
Ctrl-C ends all of this, and a run that is under way."""


def check_ports(ports: dict[str, int]) -> None:
    """Refuse ports that can't be listened on.

    Args:
        ports: by the option that chooses them.

    Raises:
        BadInput: a port is in use, asked for twice, or reserved.
    """
    if len(set(ports.values())) < len(ports):
        raise BadInput(f"{' and '.join(ports)} are both {next(iter(ports.values()))}: choose two ports")
    for option, port in ports.items():
        try:
            socket.create_server((_HOST, port)).close()
        except PermissionError:
            raise BadInput(f"port {port} is reserved for the system: choose one above 1023 with {option}") from None
        except OSError:
            raise BadInput(
                f"port {port} is in use: end what listens there, or choose another,"
                f" such as: generalist serve {option} {port + 1}"
            ) from None


def _start(
    workspace: Workspace, prefect_port: int, mlflow_port: int, running: list[Child], say: Callable[[str], None]
) -> None:
    """Start the three, each when what it needs is there; `running` is in the order in which they are to end."""
    origin, logs = f"http://{_HOST}:{prefect_port}", workspace.work / "logs"
    api, since = f"{origin}/api", datetime.now(UTC)
    check(Path(os.environ["PREFECT_HOME"]))
    migrate(Path(os.environ["PREFECT_HOME"]))
    environment = _environment(origin)
    running.append(
        Child(
            "Prefect's server",
            ["pipelines.orchestration.server_program", _HOST, str(prefect_port)],
            environment,
            logs / "prefect.log",
            folder=workspace.root,
        )
    )
    mlflow = _mlflow(workspace, mlflow_port, environment, running, logs)
    _wait(running, lambda: answers(api, within=_ANSWERS_WITHIN))
    for name, flow in DEPLOYMENTS.items():
        running.insert(
            0,
            Child(
                f"the deployment {flow}/{name}",
                ["pipelines.serving.deployment", name],
                environment | {"GENERALIST_MLFLOW_PAGES": mlflow.partition("/#")[0]},
                logs / f"deployment-{name}.log",
                folder=workspace.root,
            ),
        )
    if workspace.tracking_database is not None:
        _wait(running, lambda: answers(f"http://{_HOST}:{mlflow_port}", within=_ANSWERS_WITHIN))
    _wait(running, lambda: polled_since(api, since))
    say(announcement(prefect=origin, mlflow=mlflow, logs=logs, string=workspace.work / STRING))


def _mlflow(workspace: Workspace, port: int, environment: dict[str, str], running: list[Child], logs: Path) -> str:
    """Start MLflow's pages, unless a server of the user's has them, and return where the runs are listed."""
    from pipelines import tracking

    experiment = tracking.experiment_id(workspace, tracking.connect(workspace))
    if workspace.tracking_database is None:
        return tracking.runs_page(workspace.tracking_uri, experiment)
    command = ["mlflow", "server", "--host", _HOST, "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", workspace.tracking_uri, "--default-artifact-root", str(workspace.artifacts)]
    without = {name: value for name, value in environment.items() if name not in (CLIENT, SERVER)}
    running.append(Child("MLflow", command, without, logs / "mlflow.log", folder=workspace.root))
    return tracking.runs_page(f"http://{_HOST}:{port}", experiment)


def _environment(origin: str) -> dict[str, str]:
    """Return what the processes are told; their consoles are log files, so Prefect may speak there."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        URL: f"{origin}/api",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO",
        # Within a browser only Prefect's own pages may ask and change things; by default all of the web may.
        CORS: origin,
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        # `--watch` shows the lines of a run as they come.
        "PREFECT_SERVER_LOGS_STREAM_OUT_ENABLED": "true",
        "PREFECT_SERVER_LOGS_STREAM_PUBLISHING_ENABLED": "true",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_RUNNER_POLL_FREQUENCY": "2",  # seconds; by default ten
        # By default it also answers to `192.168.*`, which is a pattern for names of others, too.
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(f"{host},{host}:*" for host in allowed_hosts()),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # for its GenAI parts; more processes
    }


def _wait(running: list[Child], ready: Callable[[], bool]) -> None:
    until = time.monotonic() + _STARTS_WITHIN
    while not ready():
        _check(running)
        if time.monotonic() > until:
            logs = ", ".join(str(process.log) for process in running)
            raise BadInput(f"it did not start within {_STARTS_WITHIN:.0f} seconds; see {logs}")
        time.sleep(_LOOKS_EVERY)


def _check(running: list[Child]) -> None:
    """Refuse to go on without one of them."""
    for process in running:
        if process.poll() is not None:
            raise BadInput(f"{process.name} ended on its own: {process.log} says why")


def _end(running: list[Child], api: str) -> None:
    """End the deployments first, and their runs with them, while a server can be told of it; then the others."""
    deadline = time.monotonic() + _WATCHERS_LISTEN if abandon_runs(api) else 0.0
    for position, process in enumerate(running):
        process.end()
        if position == len(DEPLOYMENTS) - 1:
            time.sleep(max(0.0, deadline - time.monotonic()))


@contextmanager
def _interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt once on Ctrl-C or SIGTERM; the second leaves ending, which is under way, alone."""

    def stop(_number: int, _frame: FrameType | None) -> NoReturn:
        for again in before:
            signal.signal(again, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
