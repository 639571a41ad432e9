"""What tells of a failure never takes its place: full disks, dead servers, pipes that nobody reads."""

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient

from generalist.config import to_yaml
from generalist.errors import BadInput
from pipelines.error_reporting import telling
from pipelines.progress import Progress
from pipelines.serving.deployment import abandon_runs
from pipelines.terminal import Terminal
from pipelines.tracking import Tracker, start
from pipelines.tracking.study_tracker import open_study
from pipelines.tracking.tracker import end_killed
from pipelines.workspace import Workspace
from tests import tracking_factory as factory
from tests.services import environment, free_port, with_databases
from tests.training_factory import small

GENERALIST = "from pipelines.cli import main; main()"


@pytest.fixture
def tracker(workspace: Workspace) -> Tracker:
    """An open run."""
    return start(workspace, factory.config(), factory.DATA)


def with_first(first: BaseException, then: BaseException) -> None:
    """Fail, and fail again while that is told."""
    try:
        raise first
    finally:
        with telling():
            raise then


def test_another_failure_comes_through_only_where_there_was_none() -> None:
    """The first one stays what it was; Ctrl-C always comes through."""
    with pytest.raises(ZeroDivisionError), telling():
        _ = 1 / 0
    with pytest.raises(BadInput, match="the first"):
        with_first(BadInput("the first"), OSError("full"))
    with pytest.raises(KeyboardInterrupt):
        with_first(BadInput("the first"), KeyboardInterrupt())


def told(error: BadInput, tell: Callable[[], None]) -> None:
    """Fail as a flow does."""
    try:
        raise error
    except BaseException:
        tell()
        raise


def broken(workspace: Workspace) -> bytes:
    """Break the database, and return what it was before."""
    database = workspace.tracking_database
    assert database is not None
    before = database.read_bytes()
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("DROP TABLE runs")
        connection.commit()
    return before


def test_a_failure_that_mlflow_can_not_be_told_is_the_one_that_is_told(
    workspace: Workspace, client: MlflowClient, tracker: Tracker
) -> None:
    """The run is ended by the next start, whose lock is free by then."""
    before = broken(workspace)
    with pytest.raises(BadInput, match="the data changed"):
        told(BadInput("the data changed"), tracker.fail)
    assert workspace.tracking_database is not None
    workspace.tracking_database.write_bytes(before)
    run = client.get_run(tracker.run_id)
    assert run.info.status == "RUNNING"
    assert end_killed(workspace, client, run.info.experiment_id) == []
    assert tracker._alive is not None
    tracker._alive._lock.release()  # as the process's end does
    assert end_killed(workspace, client, run.info.experiment_id) == [tracker.run_id]


def test_a_search_that_mlflow_can_not_be_told_of_ends_with_its_own_failure(
    workspace: Workspace,
) -> None:
    """The same for a search."""
    study = open_study(workspace, "x", factory.config(), objective=("harmonic",), data_digest=factory.DATA.digest)
    broken(workspace)
    with pytest.raises(BadInput, match="workers die"):
        told(BadInput("workers die"), study.stopped)


def generalist(folder: Path, *words: str, out: str = "", err: str = "") -> tuple[int, str]:
    """Return the exit code of a command, and what it says on standard error; outputs may go elsewhere."""
    with Path(out or os.devnull).open("w") as stdout, Path(err or folder / "err").open("w") as stderr:
        code = subprocess.run(
            [sys.executable, "-c", GENERALIST, *words],
            cwd=folder,
            env=environment(),
            stdout=stdout,
            stderr=stderr,
            timeout=170,
            check=False,
        ).returncode
    return code, "" if err else (folder / "err").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "words",
    [("config", "presets"), *(pytest.param(own, marks=pytest.mark.long) for own in [("store", "list"), ("ablate",)])],
)
def test_a_full_disk_under_standard_output_is_one_sentence(tmp_path: Path, words: tuple[str, ...]) -> None:
    """By whichever way a command prints."""
    code, said = generalist(tmp_path, *words, out="/dev/full")
    assert said == "standard output can't be written (No space left on device): make room on that disk\n"
    assert code == 2


def test_a_refusal_that_can_not_be_printed_is_one_all_the_same(tmp_path: Path) -> None:
    """By its exit code."""
    assert generalist(tmp_path, "config", "check", "--preset", "nonsense", err="/dev/full")[0] == 2


def test_a_reader_that_goes_leaves_no_traceback(tmp_path: Path) -> None:
    """As `head` does."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as nobody:
        done = subprocess.run(
            [sys.executable, "-c", GENERALIST, "config", "presets"],
            cwd=tmp_path,
            env=environment(),
            stdout=nobody,
            stderr=subprocess.PIPE,
            timeout=170,
            check=False,
        )
    assert done.stderr == b""


def test_a_training_goes_on_where_nobody_reads_of_it() -> None:
    """Its lines go to a pipe without a reader, or to a full disk."""
    reading, writing = os.pipe()
    os.close(reading)
    for place in (os.fdopen(writing, "w"), os.fdopen(os.open("/dev/full", os.O_WRONLY), "w")):
        progress = Progress(console=Terminal(file=place))
        for _ in range(3):
            progress.say("an epoch")
        with suppress(OSError):
            place.close()


def test_a_server_that_says_nonsense_is_no_reason_not_to_end() -> None:
    """`generalist serve` ends everything, whatever the one that is to be told answers."""

    class Nonsense(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", free_port()), Nonsense) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert not abandon_runs(f"http://127.0.0.1:{server.server_port}/api")
        server.shutdown()


@pytest.mark.long
@pytest.mark.parametrize("failure", ["BadInput('the very sentence')", "RuntimeError('a fault of ours')"])
def test_a_failure_that_prefect_can_not_be_told_is_the_one_that_is_told(
    tmp_path: Path, pytestconfig: pytest.Config, failure: str
) -> None:
    """Its server has ended by then."""
    project = with_databases(tmp_path, pytestconfig)
    (project / "dvc.yaml").touch()
    (project / "params.yaml").write_text(to_yaml(small("training.epochs=2", "mixing.warm_up=1")), encoding="utf-8")
    program = (
        "import psutil\n"
        "from generalist.errors import BadInput\n"
        "from pipelines import flows\n"
        "from pipelines.cli import main\n"
        "def fails(*given, **named):\n"
        "    for child in psutil.Process().children():\n"
        "        child.kill()\n"
        "        child.wait()\n"
        f"    raise {failure}\n"
        "flows.start = fails\n"
        "main()\n"
    )
    home = str(project / ".generalist" / "prefect")
    done = subprocess.run(
        [sys.executable, "-c", program, "train"],
        cwd=project,
        env=environment(PREFECT_HOME=home, PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL="CRITICAL"),
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    if "BadInput" in failure:
        assert done.stderr.endswith("the very sentence\n"), done.stderr
        assert "Traceback" not in done.stderr
        assert done.returncode == 2
    else:
        assert done.stderr.splitlines()[-1] == "RuntimeError: a fault of ours", done.stderr
        assert done.returncode == 1
