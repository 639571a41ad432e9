"""`kill -9` of `generalist serve` and of its runs; and whom its servers answer."""

import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from generalist.config import load, to_yaml
from generalist.errors import BadInput
from pipelines import serving
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
def served(project: Path, prefect_port: int, mlflow_port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`generalist serve`, once it is up; ended by Ctrl-C where the block has left it alive."""
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
        yield program
    finally:
        program.send_signal(signal.SIGINT)
        program.wait(timeout=60)


def asked(url: str, body: object = None, **headers: str) -> tuple[int, Any]:
    """The status with which a server answers, and what it says."""
    request = urllib.request.Request(
        url,
        None if body is None else json.dumps(body).encode(),
        {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            content = answer.read()
            return answer.status, json.loads(content) if content[:1] in b"{[" else content
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def states(api: str, what: str) -> list[str]:
    """The types of the states of all flow runs, or of all task runs."""
    proof = {}
    status, token = asked(f"{api}/csrf-token?client=00000000-0000-4000-8000-000000000000")
    if status == 200:
        proof = {
            "Prefect_Csrf_Token": token["token"],
            "Prefect_Csrf_Client": "00000000-0000-4000-8000-000000000000",
        }
    return [run["state_type"] for run in asked(f"{api}/{what}/filter", {}, **proof)[1]]


def test_servers_answer_this_machine_alone_and_end_when_serve_is_killed(project: Path) -> None:
    """Foreign hosts and origins are refused by both; `kill -9` leaves no process, and the next serve ends its runs."""
    ports = free_port(), free_port()
    origin, mlflow = (f"http://127.0.0.1:{port}" for port in ports)
    api = f"{origin}/api"
    with served(project, *ports) as program:
        assert asked(f"{api}/admin/settings")[0] == 200
        for path in ("/api/admin/settings", "/api/csrf-token?client=x", "/api/health", "/"):
            assert asked(f"{origin}{path}", Host="evil.example")[0] == 400
            assert asked(f"{origin}{path}", Host=f"evil.example:{ports[0]}")[0] == 400
            assert asked(f"{origin}{path}", Origin="http://evil.example")[0] == 403
        assert asked(f"{origin}/api/health", Origin=origin)[0] == 200
        search = f"{mlflow}/api/2.0/mlflow/experiments/search?max_results=1"
        assert asked(search)[0] == 200
        for host in ("evil.example", f"evil.example:{ports[1]}", "192.168.evil.example"):
            assert asked(search, Host=host)[0] == 403
        assert (
            asked(f"{mlflow}/api/2.0/mlflow/experiments/create", {"name": "x"}, Origin="http://evil.example")[0] == 403
        )

        shell = project.parent
        assert prefect(api, shell, "deployment", "run", "generalist/train").returncode == 0
        until("tasks run", lambda: states(api, "task_runs").count("RUNNING") >= 2)
        (name,) = [run["name"] for run in _runs(api)]
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
    with served(project, *ports):
        until("ended", lambda: not set(states(api, "task_runs") + states(api, "flow_runs")) & set(UNDER_WAY), seconds=9)
        assert states(api, "flow_runs") == ["CRASHED"]
        assert "its process was killed" in _runs(api)[0]["state"]["message"]


def listened_on(port: int) -> bool:
    """Whether a port is still held, as by a process whose end the system hasn't finished."""
    try:
        serving.check_ports({"--port": port})
    except BadInput:
        return True
    return False


def _runs(api: str) -> list[dict[str, Any]]:
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
        return [run.model_dump(mode="json") for run in client.read_flow_runs()]
