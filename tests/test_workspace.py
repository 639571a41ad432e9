"""Where things lie, who may write them, which code is running."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from generalist.errors import BadInput
from pipelines import workspace as module
from pipelines.workspace import CodeVersion, Workspace, code_version, quiet_telemetry

HOLDER = """
import sys, time
from pathlib import Path
from pipelines.workspace import Workspace
root = Path(sys.argv[1])
with Workspace(root, root).lock(root / "outputs"):
    print("holding", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project, outside DVC's stages."""
    monkeypatch.delenv("DVC_ROOT", raising=False)
    folder = tmp_path.resolve() / "my project"
    (folder / "docs" / "deep").mkdir(parents=True)
    (folder / "dvc.yaml").touch()
    return folder


@pytest.fixture
def place(project: Path) -> Workspace:
    """Its workspace."""
    return Workspace(project, project)


def test_the_nearest_project_upwards_is_found(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From any of its folders, by its dvc.yaml."""
    assert Workspace.find(project / "docs" / "deep") == Workspace(project, project)
    monkeypatch.chdir(project / "docs")
    assert Workspace.find() == Workspace(project, project)


def test_without_a_project_it_is_the_folder_itself(project: Path) -> None:
    """As in an empty folder with an installed package."""
    assert Workspace.find(project.parent) == Workspace(project.parent, project.parent)


@pytest.mark.parametrize("below", ["", "vision"])
def test_in_dvcs_copy_work_is_shared_with_the_original(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    """Under `dvc exp run --temp`: parameters and outputs are the copy's, store and databases the original's."""
    copy = project / ".dvc" / "tmp" / "exps" / "tmp1"
    (copy / ".dvc").mkdir(parents=True)
    (copy / below).mkdir(exist_ok=True)
    (copy / below / "dvc.yaml").touch()
    monkeypatch.setenv("DVC_ROOT", str(project))
    found = Workspace.find(copy / below)
    assert found == Workspace(project / below, copy / below)
    assert (found.params, found.outputs) == (copy / below / "params.yaml", copy / below / "outputs")
    assert found.prepared == copy / below / "data" / "prepared"
    own = [found.store, found.prefect_home, found.data_cache, found.staging, found.locks, found.runs, found.artifacts]
    assert all(path.is_relative_to(project / below) and not path.is_relative_to(copy) for path in own)
    assert found.tracking_database == project / below / "mlflow.db"


def test_in_a_stage_of_the_original_both_are_the_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC sets DVC_ROOT for `dvc repro`, too."""
    (project / ".dvc").mkdir()
    monkeypatch.setenv("DVC_ROOT", str(project))
    assert Workspace.find(project) == Workspace(project, project)


@pytest.mark.parametrize(
    ("given", "uri", "file"),
    [
        ("", "sqlite:///{root}/mlflow.db", "{root}/mlflow.db"),
        ("sqlite:///other.db", "sqlite:///{root}/other.db", "{root}/other.db"),
        ("sqlite:////srv/shared.db", "sqlite:////srv/shared.db", "/srv/shared.db"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000", None),
        ("postgresql://db/mlflow", "postgresql://db/mlflow", None),
    ],
)
def test_the_tracking_address(
    place: Workspace, monkeypatch: pytest.MonkeyPatch, given: str, uri: str, file: str | None
) -> None:
    """MLFLOW_TRACKING_URI is honoured; relative files are meant from the project, wherever the command runs."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    assert place.tracking_uri == uri.format(root=place.root)
    assert place.tracking_database == (file and Path(file.format(root=place.root)))


@pytest.mark.parametrize("given", ["mlruns", "./mlruns", "file:///srv/mlruns"])
def test_a_folder_is_no_tracking_address(place: Workspace, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    """MLflow has given its file store up."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    with pytest.raises(BadInput, match=f"MLFLOW_TRACKING_URI is '{given}', a folder"):
        _ = place.tracking_uri


@pytest.mark.parametrize("name", ["100%", "what?", "c#"])
def test_a_path_that_is_no_address_is_refused(tmp_path: Path, name: str) -> None:
    """MLflow would open, or make, a database elsewhere."""
    with pytest.raises(BadInput, match=r"use a path without the characters % \? #"):
        _ = Workspace(tmp_path / name, tmp_path / name).tracking_uri


def test_a_second_writer_of_outputs_is_refused(root: Path, place: Workspace) -> None:
    """The sentence names the first and how to end it; a killed one's lock is free at once."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(place.root)], cwd=root, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "holding\n"
        told = (
            rf"another training \(process {child.pid}, for 0:00:\d\d\) is writing outputs/;"
            f" wait for it, or stop it with kill {child.pid}"
        )
        with pytest.raises(BadInput) as refused, place.lock(place.outputs):
            pytest.fail("two writers")
        assert re.fullmatch(told, str(refused.value))
        with place.lock(place.root / "runs" / "outputs"):  # another folder of that name
            pass
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    with place.lock(place.outputs):
        pass


def test_a_second_writer_in_the_same_process_is_refused(place: Workspace) -> None:
    """Threads are writers, too; afterwards the folder is free again, whatever happened."""
    with pytest.raises(BadInput, match=f"process {os.getpid()}"), place.lock(place.outputs), place.lock(place.outputs):
        pytest.fail("two writers")
    with place.lock(place.outputs):
        note = next(place.locks.glob("*.pid"))
        note.unlink()  # the moment after the lock is taken
        with pytest.raises(BadInput, match=r"^another training is writing outputs/; wait for it$"):
            place.lock(place.outputs).__enter__()


def test_one_at_a_time_waits(place: Workspace) -> None:
    """Two threads that do the same are never inside together."""
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        with place.one_at_a_time("work"):
            inside += 1
            most = max(most, inside)
            time.sleep(0.01)
            inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_locks_need_a_folder(place: Workspace) -> None:
    """A file in its place is told of before any work."""
    place.work.touch()
    with pytest.raises(BadInput, match=r"locks can't be made .*: it must be a folder"), place.lock(place.outputs):
        pytest.fail("no lock")


def test_telemetry_is_off_unless_the_user_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Defaults only: what is set stays."""
    for name in ("DO_NOT_TRACK", "PREFECT_SERVER_ANALYTICS_ENABLED", "RAY_USAGE_STATS_ENABLED", "DVC_NO_ANALYTICS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    quiet_telemetry()
    assert os.environ["DO_NOT_TRACK"] == os.environ["DVC_NO_ANALYTICS"] == "1"
    assert os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "false"


def test_telemetry_is_off_before_mlflow_is_imported(root: Path) -> None:
    """Importing the package is enough, at whatever door."""
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_DISABLE_TELEMETRY"}
    program = "import os, sys, pipelines; print(os.environ['MLFLOW_DISABLE_TELEMETRY'], 'mlflow' in sys.modules)"
    completed = subprocess.run(
        [sys.executable, "-c", program], cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    assert completed.stdout.split() == ["true", "False"]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository in which these packages seem to lie, committed."""
    for name in ("pipelines", "generalist"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "workspace.py").write_text("", encoding="utf-8")
    (tmp_path / "params.yaml").touch()
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "all")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "pipelines" / "workspace.py"))
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    """Return what git prints."""
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_code_is_dirty_by_code_alone(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters and outputs change in every experiment; and a hook's repository is not this one."""
    commit = git(repository, "rev-parse", "HEAD")
    (repository / "params.yaml").write_text("seed: 1", encoding="utf-8")
    monkeypatch.setenv("GIT_DIR", str(repository / "elsewhere"))
    assert code_version() == CodeVersion(commit, dirty=False)
    (repository / "generalist" / "new.py").touch()
    assert code_version() == CodeVersion(commit, dirty=True)


def test_an_installed_package_has_no_commit(repository: Path) -> None:
    """Though it lies in somebody's repository, as in a project's .venv."""
    git(repository, "rm", "--quiet", "--cached", "pipelines/workspace.py")
    assert code_version() == CodeVersion(None, None)


def test_a_repository_without_commits_has_none(repository: Path) -> None:
    """The files are known to git, but there is no version of them yet."""
    git(repository, "update-ref", "-d", "HEAD")
    assert code_version() == CodeVersion(None, None)


def test_without_git_there_is_no_commit(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a slim container."""
    monkeypatch.setenv("PATH", str(repository))
    assert code_version() == CodeVersion(None, None)
