"""The library's own door: `python -m generalist.training`, alone and under torch's launcher."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from generalist.config import to_yaml
from generalist.export import read_classifier
from generalist.records import History
from generalist.store import read_tensors
from generalist.training.__main__ import main
from tests.training_factory import digits, finish, small

pytestmark = pytest.mark.long

ROOT = Path(__file__).parent.parent
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
QUICK = ("training.epochs=2", "mixing.warm_up=1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with prepared digits in `data` and a configuration in `params.yaml`."""
    found = tmp_path_factory.mktemp("door")
    digits(found / "data")
    (found / "params.yaml").write_text(to_yaml(small(*QUICK)), encoding="utf-8")
    return found


def arguments(folder: Path, place: Path) -> list[str]:
    """Of a training that stores and writes below `place`."""
    words = ["--params", folder / "params.yaml", "--data", folder / "data", "--store", place / "store"]
    return [str(word) for word in (*words, "--out", place / "out")]


def launched(*words: str) -> subprocess.CompletedProcess[str]:
    """Return what two processes under torch's launcher say and come to."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *TORCHRUN, "generalist.training", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)


def test_it_trains_and_writes_what_the_library_gives(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same bits as `run`; its data are prepared where there are none; a line for each record."""
    words = arguments(folder, tmp_path)
    words[words.index("--data") + 1] = str(tmp_path / "made")
    assert main(words) == 0
    facts, outcome = finish(small(*QUICK), digits(tmp_path / "other"), tmp_path / "apart")
    assert len(capsys.readouterr().out.splitlines()) == len(facts) + 1
    for name, weights in outcome.learners.items():
        written = read_tensors(tmp_path / "out" / f"{name}.safetensors", mend="").tensors
        assert all(torch.equal(written[key], tensor) for key, tensor in weights.items())
    assert History.read(tmp_path / "out" / "history.json").rounds == outcome.history.rounds
    assert not read_classifier(tmp_path / "out" / "global.safetensors", on=torch.device("cpu")).training


def test_when_time_is_over_it_stops_and_the_same_command_goes_on(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the next record, with exit code 3 and nothing written; in the end the history is whole."""
    words = arguments(folder, tmp_path)
    assert main([*words, "--seconds", "0"]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1] == "stopped after 0 seconds; the same command goes on from what is stored"
    assert not (tmp_path / "out").exists()
    assert main([*words, "--seconds", "1000"]) == 0
    assert len(History.read(tmp_path / "out" / "history.json").epochs) == 4


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (["--preset", "digits"], "argument --preset: not allowed with argument --params; see python -m"),
        (["--seconds", "soon"], "argument --seconds: invalid float value: 'soon'; see python -m"),
        (["-S", "mixing.intervall=3"], "override 'mixing.intervall=3': mixing: unknown key 'intervall'"),
        (["-S", "data.seed=5"], "was prepared by another section `data`: name another folder as --data"),
    ],
)
def test_wrong_input_is_told_in_one_sentence(
    change: list[str], sentence: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error, with exit code 2, before anything is written."""
    assert main([*arguments(folder, tmp_path), *change]) == 2
    told = capsys.readouterr()
    assert sentence in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""
    assert list(tmp_path.iterdir()) == []


def test_two_processes_under_torchs_launcher_write_one_result(folder: Path, tmp_path: Path) -> None:
    """Told and written once; it is that of one process, to rounding."""
    done = launched(*arguments(folder, tmp_path / "two"))
    assert done.returncode == 0, done.stderr
    assert main(arguments(folder, tmp_path / "one")) == 0
    assert len(done.stdout.splitlines()) == 9
    for name in ("natural", "robust", "global"):
        one, two = (
            read_tensors(tmp_path / place / "out" / f"{name}.safetensors", mend="").tensors for place in ("one", "two")
        )
        for key, own in one.items():
            torch.testing.assert_close(two[key], own, rtol=0, atol=1e-5)


def test_under_the_launcher_wrong_input_is_told_once(folder: Path, tmp_path: Path) -> None:
    """By whichever process meets it first; all leave with 2, of which the launcher makes 1."""
    done = launched(*arguments(folder, tmp_path), "-S", "training.batch_size=1")  # read well, refused later
    assert done.returncode == 1
    assert done.stderr.count("a batch of 1 images can't be shared by 2 processes") == 1
    assert "exitcode  : 2" in done.stderr
    assert 'Traceback (most recent call last):\n  File "<frozen runpy>"' in done.stderr  # the launcher's own
    assert list(tmp_path.iterdir()) == []


def test_it_needs_no_more_than_its_few_packages(folder: Path, tmp_path: Path) -> None:
    """Where data are prepared already: no torchvision, scikit-learn, ONNX or Pillow, and nothing of the pipelines."""
    program = """
import runpy, sys
for absent in ("torchvision", "sklearn", "PIL", "onnx", "onnxscript", "onnxruntime", "matplotlib", "jinja2",
               "pipelines", "mlflow", "prefect", "dvc", "optuna", "typer", "rich", "fastapi", "filelock"):
    sys.modules[absent] = None  # importing it fails from here on
runpy.run_module("generalist.training", run_name="__main__", alter_sys=True)
"""
    words = [
        *arguments(folder, tmp_path),
        "-S",
        "mixing=null",
        "-S",
        "deploy=expert:natural",
        "-S",
        "training.epochs=1",
    ]
    command = [sys.executable, "-c", program, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "natural.safetensors").is_file()
