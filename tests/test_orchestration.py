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
from pipelines.orchestration import server_auth
from pipelines.workspace import Workspace
from tests.prefect_server import allowed_origin, check_whom_it_answers
from tests.services import environment, free_port, processes_of, with_databases

pytestmark = pytest.mark.long

FLOW = """
import json, os, sys, time
from pathlib import Path
from urllib.request import Request, urlopen
from pipelines.orchestration import server
from pipelines.orchestration.server_auth import proof
from pipelines.workspace import Workspace
here = Path.cwd()
with server(Workspace(here, here), warn=lambda text: print("warned:", text)) as ready:
    if "wait" in sys.argv:
        ready()
        print("waiting", flush=True)
        time.sleep(600)
    from pipelines.flows import generalist_flow
    ready()
    (here / "runs" / "taken" / "thesis").mkdir(parents=True)
    generalist_flow(overrides=["training.epohs=3"], return_state=True)
    generalist_flow(outputs="/elsewhere", return_state=True)
    generalist_flow(outputs="runs/taken", return_state=True)
    headers = {"Content-Type": "application/json", **proof()}
    asked = Request(os.environ["PREFECT_API_URL"] + "/flow_runs/filter", b"{}", headers)
    for run in json.load(urlopen(asked)):
        print(run["state"]["type"], run["state"]["message"])
print("given back:", os.environ.get("PREFECT_API_URL"), os.environ.get("PREFECT_API_AUTH_STRING"))
"""


@pytest.fixture
def project(tmp_path: Path, pytestconfig: pytest.Config) -> Path:
    """A project with the default configuration and databases."""
    (tmp_path / "params.yaml").write_bytes(preset_path("digits").read_bytes())
    return with_databases(tmp_path, pytestconfig)


def started(project: Path, *arguments: str, **more: str) -> subprocess.Popen[str]:
    """Start a program that runs a flow with a temporary server."""
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
    within, outside, typo = sorted(ends, key=lambda line: ("override" in line, "is not in the folders" in line))
    assert typo == "FAILED override 'training.epohs=3': training: unknown key 'epohs'; did you mean 'epochs'?"
    assert outside.startswith(
        "FAILED /elsewhere is not in the folders that the deployment writes to: name a path within"
    )
    assert within.startswith(
        f"FAILED results can't be written to {project}/runs/taken: it holds other things, such as thesis"
    )
    assert given_back == f"given back: {url} None"
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


def test_the_temporary_server_answers_its_own_program_alone(
    tmp_path: Path, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new string each time, none in a command line, and answers that no other page may read."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    workspace = Workspace(with_databases(tmp_path, pytestconfig, home=tmp_path / "home"), tmp_path)
    strings = []
    for _ in range(2):
        with orchestration.server(workspace, warn=pytest.fail) as ready:
            ready()
            origin, string = os.environ["PREFECT_API_URL"].removesuffix("/api"), os.environ["PREFECT_API_AUTH_STRING"]
            if not strings:
                check_whom_it_answers(origin, string)
            assert allowed_origin(origin) == origin
            assert not any(string in line for line in processes_of(tmp_path))
            strings.append(string)
        assert "PREFECT_API_AUTH_STRING" not in os.environ
    assert strings[0] != strings[1]
    assert min(map(len, strings)) > 40


def test_a_string_of_the_users_own_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's before a client's, and both are given back."""
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "me:mine")
    with server_auth.secured() as string:
        assert string == os.environ["PREFECT_SERVER_API_AUTH_STRING"] == "me:mine"
    assert "PREFECT_SERVER_API_AUTH_STRING" not in os.environ
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "server:own")
    with server_auth.secured() as string:
        assert string == os.environ["PREFECT_API_AUTH_STRING"] == "server:own"
    assert os.environ["PREFECT_API_AUTH_STRING"] == "me:mine"


def test_a_named_server_that_does_not_admit_us_is_told_in_one_sentence(
    tmp_path: Path, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its string, with another, and with the right one; nothing is started beside it."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    workspace = Workspace(with_databases(tmp_path, pytestconfig, home=tmp_path / "home"), tmp_path)
    with orchestration.server(workspace, warn=pytest.fail) as ready:
        ready()
        for string in ("", "generalist:other"):
            with (
                server_auth.given({"PREFECT_API_AUTH_STRING": string}),
                orchestration.server(workspace, warn=pytest.fail) as named,
                pytest.raises(BadInput, match=r"does not admit us \(401\): set PREFECT_API_AUTH_STRING"),
            ):
                named()
        with orchestration.server(workspace, warn=pytest.fail) as named:
            named()


def test_what_another_shell_reads_is_this_users_alone(tmp_path: Path) -> None:
    """A new file, whatever lay there, and gone afterwards."""
    file = tmp_path / "work" / "serve-auth"
    file.parent.mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine", encoding="utf-8")
    file.symlink_to(elsewhere)
    with server_auth.kept("generalist:secret", file):
        assert file.read_text(encoding="utf-8") == "generalist:secret\n"
        assert file.stat().st_mode & 0o777 == 0o600
        assert not file.is_symlink()
    assert not file.exists()
    assert elsewhere.read_text(encoding="utf-8") == "mine"
    file.mkdir()
    with pytest.raises(BadInput, match="serve-auth can't be written"), server_auth.kept("x", file):
        pytest.fail("it was written")


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
