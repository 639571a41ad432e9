"""The temporary Prefect server: it is there for a flow, and gone after it, however that ends."""

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from generalist.config import preset_path
from generalist.errors import BadInput
from pipelines import orchestration
from pipelines.workspace import Workspace
from tests.services import environment, free_port, processes_of, with_databases

pytestmark = pytest.mark.long

FLOW = """
import json, os, sys, time
from pathlib import Path
from urllib.request import Request, urlopen
from pipelines.orchestration import server
from pipelines.workspace import Workspace
here = Path.cwd()
with server(Workspace(here, here), warn=lambda text: print("warned:", text)) as ready:
    if "wait" in sys.argv:
        ready()
        print("waiting", flush=True)
        time.sleep(600)
    from pipelines.flows import generalist_flow
    ready()
    generalist_flow(overrides=["training.epohs=3"], return_state=True)
    generalist_flow(outputs="/elsewhere", return_state=True)
    generalist_flow(outputs="data/raw", return_state=True)
    asked = Request(os.environ["PREFECT_API_URL"] + "/flow_runs/filter", b"{}", {"Content-Type": "application/json"})
    for run in json.load(urlopen(asked)):
        print(run["state"]["type"], run["state"]["message"])
print("given back:", os.environ.get("PREFECT_API_URL"))
"""


@pytest.fixture
def project(tmp_path: Path, pytestconfig: pytest.Config) -> Path:
    """A project with the default configuration and databases."""
    (tmp_path / "params.yaml").write_bytes(preset_path("digits").read_bytes())
    return with_databases(tmp_path, pytestconfig)


def started(project: Path, *arguments: str, **more: str) -> subprocess.Popen[str]:
    """A program that runs a flow with a temporary server."""
    own = {name: value for name, value in environment(**more).items() if name != "PREFECT_HOME"}
    return subprocess.Popen(
        [sys.executable, "-c", FLOW, *arguments],
        cwd=project,
        env=own,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_flow_gets_a_temporary_server_where_the_named_one_does_not_answer(project: Path) -> None:
    """One line warns, the flow's end is recorded with its sentence, the address is given back, no server is left."""
    url = f"http://127.0.0.1:{free_port()}/api"
    program = started(project, PREFECT_API_URL=url)
    output, _ = program.communicate(timeout=120)
    assert program.returncode == 0
    warning, *ends, given_back = output.splitlines()
    assert warning.startswith(f"warned: no Prefect server answers at {url}: using a temporary one")
    within, outside, typo = sorted(ends, key=lambda line: ("override" in line, "is outside of" in line))
    assert typo == "FAILED override 'training.epohs=3': training: unknown key 'epohs'; did you mean 'epochs'?"
    assert outside.startswith("FAILED /elsewhere is outside of the project, which the deployment may not leave")
    assert within.startswith(
        f"FAILED results can't be written to {project}/data/raw: {project}/data is for other things"
    )
    assert given_back == f"given back: {url}"
    assert processes_of(project) == []
    assert (project / ".generalist" / "logs" / "prefect-temporary.log").exists()


def test_the_server_goes_when_its_program_is_killed(project: Path) -> None:
    """Even SIGKILL leaves no server behind."""
    program = started(project, "wait")
    assert program.stdout is not None
    assert program.stdout.readline() == "waiting\n"
    assert any("pipelines.orchestration" in line for line in processes_of(project))
    program.send_signal(signal.SIGKILL)
    program.wait()
    program.stdout.close()
    until = time.monotonic() + 30
    while processes_of(project) and time.monotonic() < until:
        time.sleep(0.2)
    assert processes_of(project) == []


def test_a_server_that_ends_on_its_own_is_told_with_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence names the file that says why."""
    monkeypatch.setattr(orchestration, "_PROGRAM", "no.such.module")
    workspace = Workspace(tmp_path, tmp_path)
    with (
        pytest.raises(BadInput, match=r"did not start: .*prefect-temporary\.log says why"),
        orchestration.server(workspace, warn=pytest.fail) as ready,
    ):
        ready()
    assert "no.such" in (tmp_path / ".generalist" / "logs" / "prefect-temporary.log").read_text(encoding="utf-8")


def test_a_server_that_answers_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other is started, and the address stays."""
    asked: list[str] = []
    monkeypatch.setenv("PREFECT_API_URL", "http://example.invalid/api")
    monkeypatch.setattr(orchestration, "answers", lambda url, **_: asked.append(url) or True)
    with orchestration.server(Workspace(tmp_path, tmp_path), warn=pytest.fail) as ready:
        ready()
        assert os.environ["PREFECT_API_URL"] == "http://example.invalid/api"
    assert asked == ["http://example.invalid/api"]
    assert not (tmp_path / ".generalist" / "logs").exists()


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\ntrue", True),
        (b"HTTP/1.0 401 Unauthorized\r\n\r\n", True),
        (b"HTTP/1.0 404 Not Found\r\n\r\n", False),
        (b"", False),
    ],
)
def test_a_server_answers_if_it_says_that_it_is_well_or_asks_who_we_are(reply: bytes, expected: bool) -> None:
    """Something else on that port is no Prefect server."""
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor() as threads:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(reply)

        served = threads.submit(serve)
        assert orchestration.answers(f"http://127.0.0.1:{listening.getsockname()[1]}/api", within=5) is expected
        served.result()


def test_logs_that_can_not_be_written_are_told(tmp_path: Path) -> None:
    """A file where a folder should be."""
    (tmp_path / ".generalist").write_text("", encoding="utf-8")
    with (
        pytest.raises(BadInput, match="logs can't be made"),
        orchestration.server(Workspace(tmp_path, tmp_path), warn=pytest.fail),
    ):
        pytest.fail("it was made")


def test_a_database_that_is_there_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect itself brings an older one up to date; a database elsewhere is none of ours."""
    (tmp_path / "prefect.db").write_bytes(b"mine")
    orchestration.migrate(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["prefect.db"]
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", "postgresql+asyncpg://elsewhere")
    orchestration.migrate(tmp_path / "other")
    assert not (tmp_path / "other").exists()
