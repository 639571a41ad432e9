"""The real tools end to end: DVC runs the Prefect flow, MLflow registers what comes out, every door gives the same."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from generalist.config import to_yaml
from generalist.data import load as load_data
from generalist.export import Lineage, read_metadata
from generalist.store import tensors_digest
from pipelines import orchestration
from pipelines.results import Results
from pipelines.workspace import Workspace
from tests.command_line import generalist, refused
from tests.services import databases, with_databases
from tests.training_factory import finish, small

ROOT = Path(__file__).parent.parent


def run(folder: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    """Run a program of this environment, as a user's shell would find it."""
    programs = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    sys.stderr.write(done.stdout + done.stderr)  # pytest shows it where a test fails
    return done


pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Path]:
    """A project with a small configuration, in which `dvc repro` has run, and a Prefect server for all its runs."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("generalist", "pipelines", "presets", "data/raw", ".dvc/plots"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "params.yaml").write_text(to_yaml(small()), encoding="utf-8")
    for command in ("init -q", "add -A", "-c user.name=T -c user.email=t@example.org commit -qm start"):
        subprocess.run(["git", *command.split()], cwd=folder, check=True)
    with_databases(folder, pytestconfig, home=Path(os.environ["PREFECT_HOME"]))
    with orchestration.server(Workspace(folder, folder), warn=pytest.fail) as ready:
        ready()
        assert run(folder, "dvc", "repro").returncode == 0
        yield folder


@pytest.fixture(scope="module")
def results(project: Path) -> Results:
    """What `dvc repro` put down."""
    return Results(project / "outputs")


@pytest.fixture
def _inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line in this process works in the project."""
    monkeypatch.chdir(project)


def test_repro_puts_down_all_results_and_runs_nothing_twice(project: Path, results: Results) -> None:
    """The second `dvc repro` finds everything up to date."""
    assert [path for path in results.all() if not path.is_file()] == []
    again = run(project, "dvc", "repro")
    assert again.returncode == 0
    assert "up to date" in again.stdout
    assert "Running stage" not in again.stdout


def test_the_library_alone_gives_the_same_weights(project: Path, results: Results, tmp_path: Path) -> None:
    """`generalist.training.run`, the Prefect flow and `dvc repro`: the same bits."""
    outcome = finish(small(), load_data(project / "data" / "prepared"), tmp_path)[1]
    evaluation = results.read_evaluation()
    assert tensors_digest(outcome.learners["global"]) == evaluation.headline.digest
    assert outcome.chosen == evaluation.chosen


@pytest.mark.usefixtures("_inside")
def test_the_flow_gives_the_same_files_in_another_folder(project: Path, results: Results) -> None:
    """Another door, the same bytes, also where states are truncated; and nothing new is registered.

    The line that people see names one of those files; they are kept aside.
    """
    store = Workspace(project, project).store
    whole = {path: path.read_bytes() for path in store.glob("*/*.safetensors")}
    for path in sorted(whole, key=lambda path: len(whole[path]))[-6:]:
        path.write_bytes(whole[path][:-5])
    done = run(project, "generalist", "train", "--out", "runs/again")
    assert done.returncode == 0
    assert "is damaged" in done.stderr
    assert list(store.glob("*/*.damaged"))
    again = Results(project / "runs" / "again")
    for one, other in (
        (results.weights, again.weights),
        (results.onnx, again.onnx),
        (results.verdicts, again.verdicts),
    ):
        assert one.read_bytes() == other.read_bytes()
    assert "registered before" in done.stdout
    (row,) = [line for line in done.stdout.splitlines() if "global learner" in line]
    assert str(results.read_evaluation().headline.natural) in row


@pytest.mark.usefixtures("_inside")
def test_the_model_is_the_champion_and_can_be_downloaded_and_traced(project: Path, results: Results) -> None:
    """With its metadata, byte for byte; one changed byte is noticed."""
    assert generalist("download", "--output", "champion.onnx").exit_code == 0
    champion = project / "champion.onnx"
    assert champion.read_bytes() == results.onnx.read_bytes()
    lineage = Lineage.from_metadata(read_metadata(champion))
    assert lineage.weights_digest == results.read_evaluation().headline.digest
    assert lineage.git_commit is not None
    assert generalist("trace", "champion.onnx").exit_code == 0
    content = bytearray(champion.read_bytes())
    content[len(content) // 2] ^= 1
    champion.write_bytes(content)
    assert generalist("trace", "champion.onnx").exit_code == 2


@pytest.mark.usefixtures("_inside")
def test_outputs_from_dvcs_cache_are_registered_where_the_registry_lost_them(
    project: Path, results: Results, pytestconfig: pytest.Config
) -> None:
    """DVC restores outputs without running a stage; `generalist register` then makes the MLflow run from them."""
    shutil.rmtree(results.folder)
    assert run(project, "dvc", "checkout").returncode == 0
    assert results.onnx.is_file()
    assert generalist("register").stdout == "generalist version 1, champion, registered before\n"
    shutil.copyfile(databases(pytestconfig) / "mlflow.db", project / "mlflow.db")
    assert generalist("register").stdout == "generalist version 1, champion\n"


def test_the_snippet_of_the_readme_reaches_the_accuracy_of_the_report(project: Path, results: Results) -> None:
    """Ten lines with onnxruntime and numpy alone."""
    place = project / "elsewhere"
    place.mkdir(exist_ok=True)
    shutil.copy(results.onnx, place / "model.onnx")
    evaluation = results.read_evaluation()
    evaluated = np.load(results.verdicts)["index"]
    assert len(evaluated) == evaluation.protocol.n
    for part in ("images", "labels"):
        array = np.load(project / "data" / "prepared" / f"test_{part}.npy")
        np.save(place / f"test_{part}.npy", array[evaluated])
    done = run(place, sys.executable, str(ROOT / "docs" / "snippets" / "run_onnx.py"))
    assert f"natural accuracy {100 * evaluation.headline.natural.value:.1f} %" in done.stdout


def test_metrics_are_what_dvc_shows(project: Path, results: Results) -> None:
    """`dvc metrics show` reads the accuracies of every learner."""
    shown = json.loads(run(project, "dvc", "metrics", "show", "--json").stdout)
    metrics = shown[""]["data"]["outputs/metrics.json"]["data"]
    assert metrics["global"]["natural"] == results.read_evaluation().headline.natural.value


def test_wrong_params_are_one_sentence_through_dvc_and_cost_no_results(project: Path, results: Results) -> None:
    """A non-zero exit, the sentence, which only reading the data tells, and what was made before lies where it was."""
    params = project / "params.yaml"
    before = params.read_text(encoding="utf-8")
    data = (project / "data" / "prepared").iterdir()
    made = {path: path.read_bytes() for path in (project / "dvc.lock", *results.all(), *data)}
    wrong = before.replace("  images: 640\n", "  images: 99999\n", 1)
    assert wrong != before
    try:
        params.write_text(wrong, encoding="utf-8")
        done = run(project, "dvc", "repro")
        assert done.returncode != 0
        assert "data.images is 99999" in done.stderr
        assert "Traceback" not in done.stderr
    finally:
        params.write_text(before, encoding="utf-8")
    assert {path: path.read_bytes() for path in made} == made


@pytest.mark.usefixtures("_inside")
def test_a_dataset_that_changed_after_prepare_is_refused(project: Path) -> None:
    """Before any training; the mend is named."""
    path = project / "data" / "prepared" / "train_labels.npy"
    content = path.read_bytes()
    path.unlink()  # it may be a link into DVC's cache
    try:
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        done = generalist("train", "--out", "runs/never")
        assert done.exit_code == 2
        assert "train_labels.npy" in done.stderr
        assert "dvc repro --force prepare" in done.stderr
        assert not (project / "runs" / "never").exists()
    finally:
        path.unlink()
        path.write_bytes(content)


@pytest.mark.usefixtures("_inside")
def test_an_output_folder_that_is_a_file_is_refused(project: Path) -> None:
    """Before any work."""
    (project / "taken").write_text("", encoding="utf-8")
    assert "taken is a file; remove it or name another folder" in refused("train", "--out", "taken")
