"""The journey on the command line: data, plans, DVC as a child, the closing table, and how everything is stopped."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import psutil
import pytest

from generalist.config import Config, to_yaml
from generalist.data import load as load_data
from generalist.training import Fact
from pipelines import steps
from pipelines.cli import dvc_repro
from pipelines.cli.plan_command import planned
from pipelines.cli.tables import _activation
from pipelines.workspace import Workspace
from tests import tracking_factory as factory
from tests import training_factory
from tests.command_line import generalist, refused
from tests.processes import until
from tests.services import environment

TWO_EPOCHS = ("training.epochs=2", "mixing.warm_up=1", "training.batch_size=512")
STUCK = """
import sys, threading, time
from pipelines.cli import shell
shell._STOPS_WITHIN = 0.5
def compute():
    while True:
        pass
with shell.going_on("dvc repro"):
    if "fails" in sys.argv:
        raise RuntimeError("the disk is full")
    threading.Thread(target=compute).start()
    print("computing", flush=True)
    while True:
        time.sleep(1)
"""
# Stands in for DVC: the first in a folder that Python looks for modules in, as `python -m` does.
FAKE_DVC = """
import os, shutil, subprocess, sys, time
from pathlib import Path
if Path("stage-waits").exists():
    none = subprocess.DEVNULL
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdin=none, stdout=none, stderr=none)
print("dvc", *sys.argv[1:], "with", os.environ["PATH"].split(os.pathsep)[0], flush=True)
if Path("fails").exists():
    sys.exit(3)
if Path("stage-fails").exists():
    Path(os.environ["GENERALIST_EXIT_CODE"]).write_text("2")
    sys.exit(255)
while Path("waits").exists():
    time.sleep(0.1)
"""


def put_fake_dvc(folder: Path) -> None:
    """Put a package of that name into a folder, which is a repository as DVC needs one."""
    for name in (".git", ".dvc"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "dvc").mkdir()
    (folder / "dvc" / "__init__.py").touch()
    (folder / "dvc" / "__main__.py").write_text(FAKE_DVC, encoding="utf-8")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a small configuration and MLflow's database, which is the current folder."""
    factory.workspace(tmp_path, pytestconfig)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    (tmp_path / "params.yaml").write_text(to_yaml(small()), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for name in ("DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME", "MAKELEVEL", "GENERALIST_GO_ON"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def small(*overrides: str) -> Config:
    """Two epochs of two tiny experts."""
    return training_factory.small(*TWO_EPOCHS, *overrides)


def program(*words: str, folder: Path, **more: str) -> subprocess.Popen[str]:
    """Start a Python program in a folder whose modules it finds first."""
    own = environment(**more)
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=folder,
        env=own | {"PYTHONPATH": f"{folder}{os.pathsep}{own['PYTHONPATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_prepare_writes_the_data_and_tells_its_size(project: Path) -> None:
    """The splits, the classes and the place."""
    result = generalist("prepare")
    assert result.exit_code == 0, result.output
    dataset = load_data(project / "data" / "prepared")
    sizes = f"train {len(dataset.train):,}, validation {len(dataset.validation):,}, test {len(dataset.test):,}"
    assert result.stdout == f"digits: {sizes} images of 10 classes in {project}/data/prepared\n"


def test_a_plan_lists_every_round_and_what_the_store_holds(project: Path) -> None:
    """Before, nothing; when an expert is done, that; after the training, everything. Nothing is trained by it."""
    config, workspace = small(), Workspace.find()
    *rounds, device, left, after = planned(config, workspace)
    assert device == "device: the CPU"
    assert re.fullmatch(r"to train: 4 of 4 epochs, .*; about 0:00:\d\d, an estimate from counted work, .*", left)
    assert [line.rpartition(": ")[2] for line in rounds] == ["to do", "to do"]
    assert re.fullmatch(r"then: evaluation \(quick\) \(about 0:0\d:\d\d, an estimate from .*\), ONNX export, .*", after)
    training = steps.training(config, workspace)
    told: list[Fact] = []
    training.advance(training.rounds[0], ("natural",), training.start(), told.append)
    assert [record.epoch for record in told] == [1]
    first, second, _, left, _ = planned(config, workspace)
    assert left.startswith("to train: 3 of 4 epochs")
    assert first.endswith("then redistribute: natural stored up to epoch 1, robust stored up to epoch 0")
    assert second.endswith("to do")
    training_factory.finish(config, training.dataset, workspace.store)
    for command in (("train", "--plan"), ("plan",)):
        assert generalist(*command).stdout.splitlines()[:4] == [
            "warm-up: epoch 1 of natural, robust, then redistribute: stored",
            "round 1: epoch 2 of natural, robust: stored",
            "device: the CPU",
            "to train: nothing; the store holds all 4 epochs",
        ]
    *_, left, _ = planned(small("training.epochs=3"), workspace)
    assert re.fullmatch(r"to train: 2 of 6 epochs, .*; about \d:\d\d:\d\d, by what such epochs took here", left)


def test_a_plan_says_what_is_missing(project: Path) -> None:
    """Where there are no images, it can't tell how long a training takes, and says why."""
    *_, device, left, _ = planned(small("data={name: folder, path: nowhere}"), Workspace.find())
    assert device == "device: the CPU"
    assert "told once the images are there: " in left and "nowhere" in left


def test_a_plan_says_which_warm_up_has_no_effect() -> None:
    """An expert that weighs nothing until the first redistribution is overwritten by it."""
    workspace = Workspace.find()
    alone = small("mixing.weights={robust: [[0, 1], [0.6, 1], [1, 0.4]]}")
    (note,) = [line for line in planned(alone, workspace) if line.startswith("note")]
    assert "natural is 0 until the first redistribution (epoch 1)" in note
    assert note.endswith("no effect but through the optimizer's momentum")
    *_, note = planned(small("mixing.weights={robust: 1}", "mixing.momentum=reset"), workspace)
    assert note.endswith("no effect at all")
    assert not any(line.startswith("note") for line in planned(small("mixing.weights={robust: 0.9}"), workspace))


def test_a_plan_without_data_has_everything_to_do() -> None:
    """What is wrong with the source is for the training to say."""
    config = small("data={name: folder, path: nowhere}")
    assert [line.rpartition(": ")[2] for line in planned(config, Workspace.find())][:2] == ["to do", "to do"]


def test_run_runs_dvc_registers_and_shows_what_came_out(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Every learner with n and intervals, the model, its run, version and alias, the report, what to do next."""
    put_fake_dvc(project)
    shutil.rmtree(project / "data" / "prepared", ignore_errors=True)
    factory.prepare(project / "data" / "prepared")
    factory.Model(seed=1).write(project / "outputs")
    result = generalist("run")
    assert result.exit_code == 0, result.output
    assert f"dvc repro with {Path(sys.executable).parent}\n" in capfd.readouterr().out
    said = result.stdout
    for name in ("natural expert", "other expert", "global learner"):
        (row,) = [line for line in said.splitlines() if name in line]
        assert str(factory.N) in row
        assert row.count("[") == 4  # natural, PGD, the cascade, the worst
    assert "90.0 % [82.6, 94.5]" in said and "60.0 % [50.2, 69.1]" in said
    assert f"model     {project}/outputs/model.onnx" in said
    assert f"report    {project}/outputs/report.html" in said
    assert "registry  generalist version 1, champion\n" in said
    assert "generalist trace outputs/model.onnx" in said and "make serve" in said
    assert "\x1b" not in said


def test_a_failing_dvc_fails_run_and_the_way_on_is_told(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With DVC's own exit code; nothing is registered."""
    put_fake_dvc(project)
    (project / "fails").touch()
    monkeypatch.setenv("MAKELEVEL", "1")
    result = generalist("run")
    assert result.exit_code == 3
    assert result.stderr == "go on with: make run\n"
    assert "minutes" not in result.stdout  # make has said it


def test_a_failing_stage_gives_its_own_exit_code(project: Path) -> None:
    """DVC ends with 255 whatever it was: wrong input is 2 at every door."""
    put_fake_dvc(project)
    (project / "stage-fails").touch()
    assert generalist("run").exit_code == 2


@pytest.mark.parametrize(
    ("lacks", "reason"), [(".git", "is in no git repository, which DVC needs"), (".dvc", "is no DVC project")]
)
def test_run_says_what_dvc_needs(project: Path, lacks: str, reason: str) -> None:
    """Before DVC says it with a number of its own; without git it works where it is told so."""
    put_fake_dvc(project)
    (project / lacks).rmdir()
    result = generalist("run")
    assert result.exit_code == 2
    assert reason in result.stderr and len(result.stderr.splitlines()) == 1
    if lacks == ".git":
        (project / ".dvc" / "config").write_text("[core]\n    no_scm = true\n", encoding="utf-8")
        dvc_repro.check_repository(project)


def test_with_wrong_input_run_starts_nothing(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """DVC is not begun before the configuration is read: one sentence, and nothing is made."""
    put_fake_dvc(project)
    params = project / "params.yaml"
    params.write_text(params.read_text(encoding="utf-8").replace("epochs:", "epoch:"), encoding="utf-8")
    assert "unknown key 'epoch'" in refused("run")
    assert capfd.readouterr().out == ""


@pytest.mark.long
def test_stopping_run_stops_dvc(project: Path) -> None:
    """DVC gets the signal although it is no child of the terminal; the last line is the command that goes on."""
    put_fake_dvc(project)
    (project / "waits").touch()
    child = program("-c", "from pipelines.cli import main; main()", "run", folder=project)
    assert child.stdout is not None
    while not child.stdout.readline().startswith("dvc repro"):
        assert child.poll() is None
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=30)
    assert child.returncode == 130
    assert errors.splitlines()[-1] == "go on with: generalist run"


def test_stopping_run_before_dvc_begins_says_one_line(project: Path) -> None:
    """Nothing has begun, and nothing more is said."""
    put_fake_dvc(project)
    source = (
        "from pipelines.cli import options, main\n"
        "import time\n"
        "options.configuration = lambda *_: (print('reading', flush=True), time.sleep(60))\n"
        "main()\n"
    )
    child = program("-c", source, "run", folder=project)
    assert child.stdout is not None and child.stdout.readline() == "reading\n"
    child.send_signal(signal.SIGINT)
    said, errors = child.communicate(timeout=30)
    assert child.returncode == 130
    begun, farewell = errors.splitlines()
    assert said == "" and begun.startswith("running the pipeline") and farewell == "go on with: generalist run"


def in_its_stage(project: Path) -> subprocess.Popen[str]:
    """Start a `generalist run` whose DVC runs a stage that doesn't end."""
    put_fake_dvc(project)
    for name in ("waits", "stage-waits"):
        (project / name).touch()
    child = program("-c", "from pipelines.cli import main; main()", "run", folder=project)
    assert child.stdout is not None
    while not child.stdout.readline().startswith("dvc repro"):
        assert child.poll() is None
    return child


@pytest.mark.long
def test_a_dvc_that_was_killed_takes_its_stage_with_it(project: Path) -> None:
    """`kill -9` of DVC alone: what it ran goes too, so that the same command goes on at once."""
    child = in_its_stage(project)
    (dvc,) = [own for own in psutil.Process(child.pid).children() if "dvc" in own.cmdline()]
    children = dvc.children()
    assert children
    dvc.kill()
    _, errors = child.communicate(timeout=30)
    assert child.returncode == 2
    told = "DVC was ended by signal 9 (Killed), and its stage with it; go on with: generalist run"
    assert errors.splitlines()[1:] == [told]
    assert psutil.wait_procs(children, timeout=10)[1] == []


@pytest.mark.long
def test_dvc_ends_with_a_run_that_was_killed(project: Path) -> None:
    """And what it runs."""
    child = in_its_stage(project)
    below = psutil.Process(child.pid).children(recursive=True)
    assert len(below) >= 2
    child.kill()
    child.communicate(timeout=30)
    assert psutil.wait_procs(below, timeout=10)[1] == []


@pytest.mark.parametrize("who", ["run", "stage", "outputs", "dvc"])
def test_a_second_run_names_the_first(project: Path, who: str) -> None:
    """Another run, a stage whose DVC was killed, a training into outputs, or DVC by hand: exit code 2."""
    put_fake_dvc(project)
    workspace = Workspace.find()
    locks = {
        "run": dvc_repro.alone(workspace),
        "stage": workspace.stage(),
        "outputs": workspace.lock(workspace.outputs),
        "dvc": nullcontext(),
    }
    if who == "dvc":
        held = {"write": {str(project / "outputs"): {"pid": os.getpid(), "cmd": "dvc repro"}}, "read": {}}
        (project / ".dvc" / "tmp").mkdir()
        (project / ".dvc" / "tmp" / "rwlock").write_text(json.dumps(held), encoding="utf-8")
    with locks[who]:
        sentence = refused("run")
    assert re.fullmatch(
        rf"another .* \(process {os.getpid()}, for \S*\) .*; wait for it, or stop it with kill {os.getpid()}",
        sentence,
    )


def test_a_holder_of_dvcs_lock_that_ended_is_forgotten(project: Path) -> None:
    """DVC takes it for alive while nobody has heard of its end, and when another process has its number."""
    held = project / ".dvc" / "tmp" / "rwlock"
    held.parent.mkdir(parents=True)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    until(lambda: psutil.Process(ended.pid).status() == psutil.STATUS_ZOMBIE)
    for pid, since in ((ended.pid, None), (os.getpid(), 1)):
        held.write_text(json.dumps({"read": {"data": [{"pid": pid, "cmd": "dvc repro"}]}}), encoding="utf-8")
        if since is not None:
            os.utime(held, (since, since))
        with dvc_repro.alone(Workspace.find()):
            assert not held.exists()
    ended.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_computing_thread_does_not_hold_up_the_end(tmp_path: Path, number: signal.Signals) -> None:
    """Python would wait for it; the line that goes on is said, once, and the exit code is the shell's."""
    child = program("-c", STUCK, folder=tmp_path)
    assert child.stdout is not None and child.stdout.readline() == "computing\n"
    child.send_signal(number)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 130
    assert errors.count("go on with: dvc repro\n") == 1


def test_the_last_words_begin_on_a_line_of_their_own(tmp_path: Path) -> None:
    """A terminal shows ^C where the cursor is."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", STUCK], env=environment(), cwd=tmp_path, stdout=subprocess.PIPE, stderr=theirs
    )
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        assert child.stdout is not None and child.stdout.readline() == b"computing\n"
        child.stdout.close()
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=60) == 130
        os.close(theirs)
        assert terminal.read(1000).startswith(b"\r\ngo on with: dvc repro\r\n")


@pytest.mark.parametrize(
    "words", [["run"], ["train"], ["prepare"], ["plan"], ["remix", "x"], ["tune"], ["attack", "x", "--threat", "l2:1"]]
)
def test_a_command_says_at_once_that_it_has_begun(project: Path, words: list[str]) -> None:
    """Before anything that takes seconds is imported."""
    source = (
        "import sys\n"
        "from pipelines.cli import main, shell\n"
        "def said(text):\n"
        "    print(text, *{'torch', 'numpy', 'prefect'} & set(sys.modules))\n"
        "    sys.exit(5)\n"
        "shell.tell = said\n"
        "main()\n"
    )
    child = program("-c", source, *words, folder=project)
    said, errors = child.communicate(timeout=120)
    assert child.returncode == 5, errors
    assert said.endswith("; the libraries take some seconds to start\n")


def test_insisting_ends_it_at_once(tmp_path: Path) -> None:
    """The second Ctrl-C waits for nothing."""
    child = program("-c", STUCK.replace("0.5", "600"), folder=tmp_path)
    assert child.stdout is not None and child.stdout.readline() == "computing\n"
    while child.poll() is None:
        child.send_signal(signal.SIGINT)
        time.sleep(0.2)
    _, errors = child.communicate()
    assert child.returncode == 130
    assert errors.count("go on with: dvc repro\n") == 1


def test_a_failure_keeps_its_traceback_and_says_how_to_go_on(tmp_path: Path) -> None:
    """What is our fault is shown whole."""
    child = program("-c", STUCK, "fails", folder=tmp_path)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 1
    assert errors.startswith("go on with: dvc repro\n") and "RuntimeError: the disk is full" in errors


def test_a_child_leaves_the_last_words_to_its_parent(tmp_path: Path) -> None:
    """`run` tells its stages so, and each command only once."""
    child = program("-c", STUCK, "fails", folder=tmp_path, GENERALIST_GO_ON="")
    _, errors = child.communicate(timeout=60)
    assert "go on with" not in errors


def test_a_stage_of_dvc_goes_on_with_dvc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of its commands, it tells by its environment."""
    assert dvc_repro.dvc_command() is None
    monkeypatch.setenv("DVC_STAGE", "train")
    assert dvc_repro.dvc_command() == "dvc repro"
    monkeypatch.setenv("DVC_EXP_NAME", "puffy-daks")
    assert dvc_repro.dvc_command() == "dvc exp run, with the same options"
    monkeypatch.setenv("MAKELEVEL", "1")
    assert dvc_repro.run_command() == "make run"


def test_the_next_commands_begin_with_the_environment_where_it_is_not_active(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the project's own environment, and only where it is needed."""
    workspace = Workspace.find()
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    monkeypatch.setattr(sys, "prefix", str(project / ".venv"))
    assert _activation(workspace).startswith("  source .venv/bin/activate ")
    monkeypatch.setenv("VIRTUAL_ENV", str(project / ".venv"))
    assert _activation(workspace) == ""
    monkeypatch.delenv("VIRTUAL_ENV")
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    assert _activation(workspace) == ""
