"""`generalist serve`: ports are checked first, a second shell can run the deployment, and nothing is left afterwards."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from generalist.config import load, to_yaml
from generalist.errors import BadInput
from pipelines import serving
from pipelines.end_with_parent import Child
from pipelines.orchestration import answers
from pipelines.serving.deployment import abandon_runs, polled_since
from tests.prefect_server import exported
from tests.services import environment, free_port, processes_of, with_databases

pytestmark = pytest.mark.long

NOWHERE = "http://127.0.0.1:9/api"
SMALL = (
    "training.epochs=2",
    "mixing.warm_up=1",
    "mixing.interval=1",
    "model.width=4",
    "evaluation.images=10",
    "evaluation.pgd.steps=1",
    "evaluation.selection_attack.steps=1",
    "evaluation.attack=quick",
)
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "child" not in sys.argv:
    subprocess.Popen([sys.executable, __file__, "child"])
open("ready-child" if "child" in sys.argv else "ready-parent", "w").close()
time.sleep(600)
"""


def started(folder: Path, source: str, *, name: str = "a part") -> Child:
    """Start a process that runs this source as a module."""
    (folder / "part.py").write_text(source, encoding="utf-8")
    return Child(name, ["part"], dict(os.environ), folder / "logs" / "part.log", folder=folder)


def until(condition: str, reached: object, *, seconds: float = 60) -> None:
    """Wait for a condition, a function without arguments."""
    assert callable(reached)
    limit = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < limit, condition
        time.sleep(0.05)


def test_a_port_in_use_is_refused_before_anything_starts(tmp_path: Path) -> None:
    """The sentence names the port and the option that chooses another."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(BadInput, match=f"port {port} is in use: .* generalist serve --mlflow-port {port + 1}"):
            serving.check_ports({"--prefect-port": free_port(), "--mlflow-port": port})
    serving.check_ports({"--prefect-port": port})


def test_one_port_for_two_is_refused() -> None:
    """Both options are named."""
    with pytest.raises(BadInput, match="--prefect-port and --mlflow-port are both 4200: choose two ports"):
        serving.check_ports({"--prefect-port": 4200, "--mlflow-port": 4200})


def test_a_reserved_port_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the system's own may listen there."""

    def refuse(_address: tuple[str, int]) -> None:
        raise PermissionError

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(BadInput, match="port 80 is reserved for the system: choose one above 1023 with --prefect-port"):
        serving.check_ports({"--prefect-port": 80})


def test_ending_a_process_ends_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its children go too, and those that ignore SIGTERM are killed."""
    monkeypatch.setattr("pipelines.end_with_parent._ENDS_WITHIN", 0.5)
    process = started(tmp_path, STUBBORN)
    until("both run", lambda: all((tmp_path / f"ready-{who}").exists() for who in ("parent", "child")))
    assert process.poll() is None
    assert len(processes_of(tmp_path)) == 2
    process.end()
    assert process.poll() is not None
    assert processes_of(tmp_path) == []
    process.end()  # again is no error


def test_a_process_that_ends_on_its_own_is_told_with_its_log(tmp_path: Path) -> None:
    """What it said is in the file that the sentence names."""
    process = started(tmp_path, "raise SystemExit('no reason')", name="MLflow")
    until("it ends", lambda: process.poll() is not None)
    with pytest.raises(BadInput, match=f"MLflow ended on its own: {tmp_path}/logs/part.log says why"):
        serving._check([process])
    assert process.log and process.log.read_text(encoding="utf-8") == "no reason\n"
    process.end()


def test_what_does_not_start_in_time_is_told_with_the_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for ever."""
    monkeypatch.setattr(serving, "_STARTS_WITHIN", 0.0)
    process = started(tmp_path, "import time; time.sleep(600)")
    with pytest.raises(BadInput, match=f"it did not start within 0 seconds; see {tmp_path}/logs"):
        serving._wait([process], lambda: False)
    process.end()


def test_logs_that_can_not_be_written_are_told(tmp_path: Path) -> None:
    """A file where the folder should be."""
    (tmp_path / "logs").write_text("", encoding="utf-8")
    with pytest.raises(BadInput, match=r"logs/part\.log can't be written"):
        started(tmp_path, "")


def test_without_a_server_nothing_is_polled_and_nothing_abandoned() -> None:
    """Ending goes on, whatever has ended before."""
    assert not answers(NOWHERE, within=2.0)
    assert not polled_since(NOWHERE, datetime.now(UTC))
    assert not abandon_runs(NOWHERE)


def test_the_announcement_needs_one_line_to_be_copied(tmp_path: Path) -> None:
    """One export, of the address, of what it asks for and of these programs."""
    string = tmp_path / "with a space" / "serve-auth"
    string.parent.mkdir()
    string.write_text("generalist:secret\n", encoding="utf-8")
    text = serving.announcement(
        prefect="http://127.0.0.1:1",
        mlflow="http://127.0.0.1:2/#/experiments/1/runs",
        logs=Path("x"),
        string=string,
    )
    given = exported(text, tmp_path)
    assert given.pop("PATH").startswith(f"{Path(sys.executable).parent}:")
    assert given == {"PREFECT_API_URL": "http://127.0.0.1:1/api", "PREFECT_API_AUTH_STRING": "generalist:secret"}
    assert "secret" not in text
    assert "http://127.0.0.1:2/#/experiments/1/runs" in text


def deployment_run(
    given: dict[str, str], folder: Path, *parameters: str, deployment: str = "generalist/train"
) -> subprocess.CompletedProcess[str]:
    """`prefect deployment run … --watch` in another shell, which knows what the `export` line gives it alone."""
    asked = [word for parameter in parameters for word in ("--param", parameter)]
    return prefect(given, folder, "deployment", "run", deployment, "--watch", *asked)


def prefect(given: dict[str, str], folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of Prefect's in such a shell."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "GENERALIST"))}
    return subprocess.run(
        [Path(sys.executable).with_name("prefect"), *words],
        cwd=folder,
        env=own | given | {"HOME": str(folder), "COLUMNS": "300"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def _search_and_compare(project: Path, given: dict[str, str], shell: Path) -> None:
    """Run the other two deployments, in small."""
    space = {"mixing.decay": {"choices": [0.1, 0.2]}}
    asked = ["tuning.trials=2", "tuning.attack=selection", f"tuning.space={json.dumps(space)}"]
    done = deployment_run(given, shell, f"overrides={json.dumps(asked)}", deployment="generalist-tune/search")
    assert done.returncode == 0, done.stdout
    assert "Failed" not in done.stdout
    (found,) = (project / "tuning").iterdir()
    assert json.loads((found / "tuning.json").read_text(encoding="utf-8"))["states"] == {"complete": 2}
    assert (found / "tuning.html").exists()

    few = [one for one in SMALL if not one.startswith("mixing.")]
    rows = [f"presets={json.dumps(['digits-natural'])}", f"overrides={json.dumps(few)}", "seeds=1", "name=one"]
    done = deployment_run(given, shell, *rows, deployment="generalist-compare/compare")
    assert done.returncode == 0, done.stdout
    assert "digits-natural, seed 0: done" in done.stdout and "Failed" not in done.stdout
    assert (project / "comparisons" / "one" / "frontier.html").exists()


def test_a_second_shell_runs_the_deployment_and_ctrl_c_ends_everything(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """A run with an override completes in runs/ID, and then no process and no port is left."""
    project = with_databases(tmp_path / "project", pytestconfig)
    shell = tmp_path / "elsewhere"
    shell.mkdir()
    (project / "params.yaml").write_text(to_yaml(load(preset="digits", overrides=SMALL)), encoding="utf-8")
    ports = free_port(), free_port()
    command = [sys.executable, "-c", "from pipelines.cli import main; main()", "serve"]
    own = {name: value for name, value in environment().items() if name != "PREFECT_HOME"}
    with (tmp_path / "said").open("w") as said:
        program = subprocess.Popen(
            [*command, "--prefect-port", str(ports[0]), "--mlflow-port", str(ports[1])],
            cwd=project,
            env=own,
            stdout=said,
            stderr=said,
        )
    try:
        until(
            "it is served",
            lambda: program.poll() is not None or "Ctrl-C ends" in (tmp_path / "said").read_text(encoding="utf-8"),
            seconds=180,
        )
        text = (tmp_path / "said").read_text(encoding="utf-8")
        given = exported(text, shell)
        string = given["PREFECT_API_AUTH_STRING"]
        assert string not in text
        kept = project / ".generalist" / "serve-auth"
        assert kept.stat().st_mode & 0o777 == 0o600
        assert f"http://127.0.0.1:{ports[1]}/#/experiments/1/runs" in text

        done = deployment_run(given, shell, f"overrides={json.dumps(['seed=7'])}")
        assert done.returncode == 0, done.stdout + (project / ".generalist/logs/deployment-train.log").read_text(
            "utf-8"
        )
        for told in ("warm up natural", "warm up robust", "mix round 0 (epoch 1)", "rounds", "evaluation"):
            assert told in done.stdout
        (outputs,) = (project / "runs").iterdir()
        assert load(outputs / "params.yaml").seed == 7
        assert (outputs / "model.onnx").exists()

        listed = prefect(given, shell, "artifact", "ls")
        assert listed.returncode == 0, listed.stdout + listed.stderr

        _search_and_compare(project, given, shell)
        assert not any(string in line for line in processes_of(project))
        for log in (project / ".generalist" / "logs").iterdir():
            assert string not in log.read_text("utf-8", errors="replace")
    finally:
        program.send_signal(signal.SIGINT)
        code = program.wait(timeout=60)
    assert code == 0, (tmp_path / "said").read_text(encoding="utf-8")
    assert processes_of(project) == []
    assert not kept.exists()
    serving.check_ports({"--prefect-port": ports[0], "--mlflow-port": ports[1]})
