"""`kill -9` of `generalist serve` and of its runs; and whom its servers answer."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from generalist.config import load, to_yaml
from generalist.errors import BadInput
from pipelines import serving
from pipelines.orchestration import server_auth
from tests.prefect_server import allowed_origin, asked, check_whom_it_answers, exported, proof
from tests.services import environment, free_port, processes_of, with_databases
from tests.test_serving import SMALL, prefect, until

pytestmark = pytest.mark.long
UNDER_WAY = ["PENDING", "RUNNING", "CANCELLING"]


@pytest.fixture
def project(tmp_path: Path, pytestconfig: pytest.Config) -> Path:
    """A project whose training takes long enough to be killed."""
    folder = with_databases(tmp_path / "project", pytestconfig)
    long = (*SMALL, "training.epochs=2000", "mixing.warm_up=1999")
    (folder / "params.yaml").write_text(to_yaml(load(preset="digits", overrides=long)), encoding="utf-8")
    return folder


@contextmanager
def served(
    project: Path, prefect_port: int, mlflow_port: int
) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, str]]]:
    """`generalist serve`, once it is up, and what its `export` line gives; ended by Ctrl-C where it is still alive."""
    command = [sys.executable, "-c", "from pipelines.cli import main; main()", "serve"]
    own = {name: value for name, value in environment().items() if name != "PREFECT_HOME"}
    said = project.parent / "said"
    with said.open("w") as output:
        program = subprocess.Popen(
            [*command, "--prefect-port", str(prefect_port), "--mlflow-port", str(mlflow_port)],
            cwd=project,
            env=own,
            stdout=output,
            stderr=output,
        )
    try:
        until(
            "it is served",
            lambda: program.poll() is not None or "Ctrl-C ends" in said.read_text(encoding="utf-8"),
            seconds=180,
        )
        assert program.poll() is None, said.read_text(encoding="utf-8")
        yield program, exported(said.read_text(encoding="utf-8"), project.parent)
    finally:
        program.send_signal(signal.SIGINT)
        program.wait(timeout=60)


def states(given: dict[str, str], what: str) -> list[str]:
    """Return the types of the states of all flow runs, or of all task runs."""
    api, headers = given["PREFECT_API_URL"], proof(given["PREFECT_API_AUTH_STRING"])
    status, token = asked(f"{api}/csrf-token?client=00000000-0000-4000-8000-000000000000", **headers)
    if status == 200:
        headers |= {
            "Prefect_Csrf_Token": token["token"],
            "Prefect_Csrf_Client": "00000000-0000-4000-8000-000000000000",
        }
    return [run["state_type"] for run in asked(f"{api}/{what}/filter", {}, **headers)[1]]


def test_servers_answer_this_machine_alone_and_end_when_serve_is_killed(project: Path) -> None:
    """Foreign hosts and origins are refused by both; `kill -9` leaves no process, and the next serve ends its runs."""
    ports = free_port(), free_port()
    origin, mlflow = (f"http://127.0.0.1:{port}" for port in ports)
    with served(project, *ports) as (program, given):
        string = given["PREFECT_API_AUTH_STRING"]
        check_whom_it_answers(origin, string)
        assert allowed_origin(origin) == origin
        assert asked(f"{origin}/ui-settings")[1]["auth"] == "BASIC"
        assert b"<div id" in asked(origin)[1]
        search = f"{mlflow}/api/2.0/mlflow/experiments/search?max_results=1"
        assert asked(search)[0] == 200
        for host in ("evil.example", f"evil.example:{ports[1]}", "192.168.evil.example"):
            assert asked(search, Host=host)[0] == 403
        assert (
            asked(f"{mlflow}/api/2.0/mlflow/experiments/create", {"name": "x"}, Origin="http://evil.example")[0] == 403
        )

        shell = project.parent
        assert prefect(given, shell, "deployment", "run", "generalist/train").returncode == 0
        until("tasks run", lambda: states(given, "task_runs").count("RUNNING") >= 2)
        (name,) = [run["name"] for run in _runs(given)]
        assert name == "digits · natural + robust · t'=1999 c=1 · seed 0"
        second = subprocess.run(
            [sys.executable, "-c", "from pipelines.cli import main; main()", "serve", "--prefect-port", "4999"],
            cwd=project,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert second.returncode == 2
        assert re.search(rf"another `generalist serve` \(process {program.pid}, for 0:.*\) is up", second.stderr)

        program.send_signal(signal.SIGKILL)
        program.wait()
        until("all ends", lambda: processes_of(project) == [], seconds=20)
        until("its ports are free", lambda: not any(listened_on(port) for port in ports), seconds=20)
    with served(project, *ports) as (_, given):
        assert given["PREFECT_API_AUTH_STRING"] != string
        until(
            "ended",
            lambda: not set(states(given, "task_runs") + states(given, "flow_runs")) & set(UNDER_WAY),
            seconds=9,
        )
        assert states(given, "flow_runs") == ["CRASHED"]
        assert "its process was killed" in _runs(given)[0]["state"]["message"]


def listened_on(port: int) -> bool:
    """Whether a port is still held, as by a process whose end the system hasn't finished."""
    try:
        serving.check_ports({"--port": port})
    except BadInput:
        return True
    return False


def _runs(given: dict[str, str]) -> list[dict[str, Any]]:
    from prefect.client.orchestration import get_client

    own = {name: value for name, value in given.items() if name != "PATH"}
    with server_auth.given(own), get_client(sync_client=True) as client:
        return [run.model_dump(mode="json") for run in client.read_flow_runs()]
