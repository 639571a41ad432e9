"""`generalist compare`: wrong input is refused before any work; it goes on after a kill; what is there is used again."""

import json
import os
import shlex
import shutil
import signal
import time
from pathlib import Path

import pytest

from generalist.comparison import Comparison
from generalist.config import load, preset_path
from generalist.errors import BadInput
from generalist.evaluation import learner_names
from pipelines.comparison import spec as specs
from pipelines.comparison.jobs import Folder, Plan, planned
from pipelines.comparison.run import JobProcess, default_name, run, write
from pipelines.comparison.worker import work
from pipelines.tracking import connect
from pipelines.tracking.comparisons import COMPARED, publish_comparison
from pipelines.workspace import Workspace
from tests.command_line import refused

DECLARED = sorted(path.stem for path in (preset_path("digits").parent / "comparisons").glob("*.yaml"))
FEW = (
    "data.images=640", "training.epochs=2", "training.batch_size=256", "training.checkpoint_epochs=1",
    "evaluation.attack=quick", "evaluation.images=12", "evaluation.pgd.steps=2", "evaluation.square_queries=10",
)  # fmt: skip
"""What makes two presets small."""


@pytest.fixture
def small() -> specs.ComparisonSpec:
    """Return two presets of which nothing is left but their method, and a curve through one of them."""
    return specs.asked(["digits-natural", "digits-pgd-at"], None, 1, None, FEW)


@pytest.mark.long
@pytest.mark.parametrize("name", DECLARED)
def test_what_is_declared_can_be_compared(name: str) -> None:
    """Every row of a declared comparison is a right configuration, evaluated like the first; none is named twice."""
    spec = specs.asked([], name, None, None, [])
    configs = dict(specs.configurations(spec))
    assert len({line.title for line in configs}) == len(configs)
    attacked = {json.dumps(config.evaluation.model_dump(mode="json", exclude={"conditions", "widths", "transfers"}))
                for config in configs.values()}  # fmt: skip
    assert len(attacked) == 1
    assert f"generalist compare --file {name}" in specs.named(name).read_text("utf-8")


def test_wrong_input_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one sentence, which says what is known."""
    monkeypatch.chdir(tmp_path)
    assert "name presets to compare" in refused("compare")
    assert "name presets to compare" in refused("compare", "digits", "--file", "digits")
    assert "did you mean 'digits-pgd-at'" in refused("compare", "digits-pgdat")
    assert "neither passes nor seconds" in refused("compare", "digits", "--budget", "6e5")
    assert "did you mean 'digits'" in refused("compare", "--file", "digit")
    assert "is no name" in refused("compare", "digits", "--name", "../x")
    assert "epohcs" in refused("compare", "digits", "-S", "training.epohcs=1")
    assert not (tmp_path / "comparisons").exists() and not (tmp_path / "mlflow.db").exists()


def test_the_deployment_reads_nothing_outside_of_the_project(tmp_path: Path) -> None:
    """Neither a configuration, nor a declared comparison, nor what an override leads to."""
    from pipelines.comparison_flow import _asked

    project = Workspace(tmp_path, tmp_path)
    assert _asked(project, ["digits"], None, None, None, []).rows.keys() == {"digits"}
    for presets, file, overrides in (
        (["/etc/x.yaml"], None, []),
        ([], "/etc/x.yaml", []),
        (["digits"], None, ["training.initial_weights=/etc/w.safetensors"]),
    ):
        with pytest.raises(BadInput, match="outside of the project"):
            _asked(project, presets, file, None, None, overrides)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ({"rows": {}}, "rows"),
        ({"rows": {"A": {"preset": "digits"}}, "reference": "B"}, "no row is called 'B'"),
        ({"rows": {"A": {"preset": "digits"}}, "evaluation": ["seed=1"]}, "changes no option of evaluation"),
        ({"rows": {"A": {"preset": "digits"}}, "seed": 1}, "did you mean 'seeds'"),
        (
            {
                "rows": {"C, 1": {"preset": "digits"}},
                "curves": {"C": {"preset": "digits", "over": "seed", "values": [1, 2]}},
            },
            "share the title 'C, 1'",
        ),
        ({"rows": {"A": {"preset": "digits"}}, "curves": {"C": {"preset": "digits", "over": "seed", "values": [1]}}}, "curves"),
    ],
)  # fmt: skip
def test_a_wrong_declaration_is_refused(written: dict[str, object], told: str) -> None:
    """With the file's name."""
    with pytest.raises(BadInput, match=r"x\.yaml") as refusal:
        specs.checked(written, "x.yaml")
    assert told in str(refusal.value)


def test_a_plan_is_kept_and_a_folder_is_one_comparison_s(small: specs.ComparisonSpec, tmp_path: Path) -> None:
    """The same is asked: the plan that was made before; something else: refused. Other test images: refused."""
    workspace, folder = Workspace(tmp_path, tmp_path), Folder(tmp_path / "comparisons" / "x")
    plan = planned(folder, small, workspace)
    written = folder.plan.read_bytes()
    assert planned(folder, small, workspace) == plan and folder.plan.read_bytes() == written
    assert len(plan.jobs) == len({job.key for job in plan.jobs}) == 2
    with pytest.raises(BadInput, match="holds another comparison"):
        planned(folder, small.model_copy(update={"seeds": 2}), workspace)
    assert folder.plan.read_bytes() == written
    mine = {"A": specs.RowSpec(preset="digits"), "B": specs.RowSpec(preset="digits", set=("data.seed=7",))}
    with pytest.raises(BadInput, match="tested on other images"):
        planned(Folder(tmp_path / "y"), small.model_copy(update={"rows": mine}), workspace)


def test_the_command_of_a_training_is_what_was_trained(tmp_path: Path) -> None:
    """With what a budget made of its length; and a changed code is measured again, at the lengths of then."""
    spec = specs.asked(["digits-pgd-at", "digits-anchored", "digits"], None, 1, "1e5 passes", FEW[3:])
    workspace, folder = Workspace(tmp_path, tmp_path), Folder(tmp_path / "x")
    plan = planned(folder, spec, workspace)
    for job in plan.jobs:
        _, _, _, preset, *words = shlex.split(job.command)
        alone, meant = load(preset=preset, overrides=words[1::2]), job.configuration()
        assert meant == alone.model_copy(update={"evaluation": meant.evaluation}), job.command
        assert meant.training.epochs != load(preset=preset).training.epochs
    longer = [job.model_copy(update={"key": "of other code", "passes": 7.0}) for job in plan.jobs]
    folder.plan.write_text(plan.model_copy(update={"jobs": tuple(longer)}).model_dump_json(), encoding="utf-8")
    again = planned(folder, spec, workspace)
    assert [(job.key, job.passes) for job in again.jobs] == [(job.key, 7.0) for job in plan.jobs]


def test_a_training_is_measured_and_published_once(
    small: specs.ComparisonSpec, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file says what it came to and cost; MLflow has one run for the same figures."""
    folder = Folder(workspace.comparisons / "x")
    plan = planned(folder, small, workspace)
    first, second = plan.jobs
    work(folder, second, workspace)
    found = write(folder, "x", plan, "generalist compare x")
    assert found.missing == 1 and [row.title for row in found.rows()] == ["digits-pgd-at"]
    (training,) = found.trainings
    assert training.passes == second.passes > first.passes and training.memory > 10**7 and training.epochs == 2
    assert training.learners[0].name in learner_names(["robust"], second.configuration().evaluation)
    assert Comparison.read(folder.record) == found and "digits-pgd-at" in folder.page.read_text("utf-8")
    runs = {publish_comparison(workspace, found, folder.files) for _ in range(2)}
    client = connect(workspace)
    run_ = client.get_run(runs.pop())
    assert not runs and run_.data.tags[COMPARED] == "x" and run_.info.status == "FINISHED"
    assert {file.path for file in client.list_artifacts(run_.info.run_id)} == {path.name for path in folder.files}


@pytest.mark.long
def test_it_goes_on_after_a_kill_and_a_failure_spares_the_others(small: specs.ComparisonSpec, tmp_path: Path) -> None:
    """Killed at its first training, it does the rest; what is there stays; a training that fails is told at the end."""
    shutil.copy(preset_path("digits").parent.parent / "dvc.yaml", tmp_path)
    workspace, told = Workspace(tmp_path, tmp_path), list[str]()
    name = default_name(small)

    class Killed(JobProcess):
        def poll(self) -> int | None:
            if "pgd" in self.name and super().poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
                time.sleep(0.1)
            return super().poll()

    environment = {"PYTHONPATH": os.pathsep.join([str(preset_path("digits").parent.parent)])}
    before = dict(os.environ)
    os.environ.update(environment)
    os.chdir(tmp_path)
    try:
        with pytest.raises(BadInput, match="1 of 2 trainings failed, the others are there: digits-pgd-at, seed 0"):
            run(workspace, small, name=name, command="c", workers=2, tell=told.append, shown=Killed)
        folder = Folder(workspace.comparisons / name)
        plan = Plan.read(folder.plan)
        there = folder.training(plan.jobs[0]).read_bytes()
        found = run(workspace, small, name=name, command="c", workers=1, tell=told.append)
    finally:
        os.environ.clear()
        os.environ.update(before)
    assert found.missing == 0 and len(found.rows()) == 2 and "2 trainings, 1 of them to do" in " ".join(told)
    assert folder.training(plan.jobs[0]).read_bytes() == there
