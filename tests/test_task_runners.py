"""The flow's tasks take plain values, so they run in threads, in processes or elsewhere, to the same bits."""

import json
import subprocess
import sys
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from generalist.attacks import VERSIONS, model_checks
from generalist.config import check, load, preset_names, to_yaml
from generalist.data import Dataset
from generalist.evaluation import learner_names
from generalist.store import tensors_digest
from generalist.training import Outcome, learners
from pipelines import artifacts, run_context, submitting, tasks
from pipelines.results import Results
from pipelines.tracking import start
from pipelines.workspace import Workspace
from tests import tracking_factory
from tests.listener import Listener
from tests.preset_factory import few, overrides
from tests.services import environment, with_databases
from tests.training_factory import digests, finish, small

PROGRAM = """
import json
import os
import sys
from pathlib import Path

from pipelines.orchestration import server
from pipelines.workspace import Workspace
from tests.listener import Listener

with server(Workspace.find(), warn=sys.exit) as ready:  # which Prefect, imported after it, takes for its own
    from prefect.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner
    from pipelines import flows

    ready()
    for runner in (ThreadPoolTaskRunner(max_workers=2), ProcessPoolTaskRunner(max_workers=2)):
        name, listener = type(runner).__name__, Listener()
        os.environ["GENERALIST_STORE"] = name
        made = flows.run(watch=listener, overrides=[], outputs=Path("runs", name), task_runner=runner)
        told = [sorted(listener.epochs), listener.rounds, sorted(listener.attacks)]
        print(json.dumps([made["weights"], made["onnx_sha256"], told]))
    for preset, overrides in json.loads(sys.argv[1]).items():
        made = flows.run(watch=Listener(), preset=preset, overrides=overrides, outputs=Path("runs", preset))
        print(json.dumps([preset, made["weights"]]))
"""

PRESETS = ("digits-oat", "digits-mat")
"""A conditional network, and peers."""


class Carried:
    """A task whose arguments travel as JSON."""

    def __init__(self, task: Any) -> None:
        self._does = task.fn

    def __call__(self, *given: Any) -> Any:
        return self._does(*json.loads(json.dumps(given, allow_nan=False)))

    def submit(self, *given: Any) -> Future[Any]:
        """Do it now."""
        done: Future[Any] = Future()
        done.set_result(self(*given))
        return done


@pytest.mark.parametrize("name", preset_names())
def test_a_configuration_travels_as_plain_values(name: str) -> None:
    """Every number is written as before."""
    plain = load(preset=name).model_dump(mode="json")
    assert check(json.loads(json.dumps(plain))).model_dump(mode="json") == plain


@pytest.mark.long
@pytest.mark.parametrize(("followed", "images"), [(True, 40), (False, 257)])
def test_arguments_that_travelled_as_json_give_the_same_bits(
    workspace: Workspace, prepared: Path, outcome: Outcome, monkeypatch: pytest.MonkeyPatch, followed: bool, images: int
) -> None:
    """Also where the tasks don't find the run: then their results tell what happened."""
    monkeypatch.setattr(model_checks, "_HUGE_STEPS", 2)
    monkeypatch.setitem(VERSIONS, "quick", replace(VERSIONS["quick"], targets=2, steps=3, fab_steps=2))
    names = ("prepare", "advance", "mix", "evaluate", "export", "report")
    for name in names:
        monkeypatch.setattr(tasks, name, Carried(getattr(tasks, name)))
    for name in ("rounds", "final"):
        monkeypatch.setattr(artifacts, name, lambda _: None)
    if not followed:
        monkeypatch.setattr(run_context, "job_here", lambda _: None)
    staged = workspace.staging / "here"
    staged.mkdir(parents=True)
    config = small("evaluation.shards=2", f"evaluation.images={images}").model_dump(mode="json")
    spec: run_context.RunSpec = {
        "id": str(followed),
        "root": str(workspace.root),
        "here": str(workspace.here),
        "config": config,
        "data": str(prepared),
        "staged": str(staged),
    }
    training, listener = run_context.open_training(spec), Listener()
    run = run_context.RunContext(training, start(workspace, training.config, tracking_factory.DATA), listener)
    with run_context.followed(run, spec):
        end = submitting.train(run, spec)
        evaluation = submitting.evaluate(run, spec, end, Results(staged))
        tasks.export("export", spec, end)
        tasks.report("report", spec, end)
    found = learners(training, run_context.ending_of(end))
    assert {name: tensors_digest(weights) for name, weights in found.items()} == digests(outcome)
    assert evaluation.chosen == outcome.chosen
    assert {(record.expert, record.epoch, record.loss) for record in outcome.history.epochs} == {*listener.epochs}
    assert len(listener.epochs) == len(outcome.history.epochs)
    assert [epoch for epoch, _ in listener.rounds] == [record.epoch for record in outcome.history.rounds]
    parts = [""] if images == 40 else [", images 0 to 255", ", images 256 to 256"]
    assert {learner for learner, _ in listener.attacks} == {name + part for name in outcome.learners for part in parts}
    assert Results(staged).onnx.is_file()
    assert Results(staged).report.is_file()


@pytest.mark.long
def test_threads_and_processes_give_the_same_bits(
    tmp_path: Path, pytestconfig: pytest.Config, dataset: Dataset
) -> None:
    """Each trains anew; whoever follows the run is told the same. Other kinds of networks are as the library has them."""
    project = with_databases(tmp_path, pytestconfig)
    (project / "dvc.yaml").touch()
    short = small("training.epochs=2", "mixing.warm_up=1", "training.batch_size=512")
    (project / "params.yaml").write_text(to_yaml(short), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps({name: overrides(name) for name in PRESETS})],
        cwd=project,
        env={name: value for name, value in environment().items() if name != "PREFECT_HOME"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    threads, processes, *presets = map(json.loads, done.stdout.splitlines())
    assert threads == processes
    assert {expert for expert, _, _ in threads[2][0]} == {*short.experts}
    for name in ("ThreadPoolTaskRunner", "ProcessPoolTaskRunner"):
        assert any((project / name).glob("*/*.safetensors"))
    assert [name for name, _ in presets] == [*PRESETS]
    for name, weights in presets:
        config = few(name)
        outcome = finish(config, dataset, tmp_path / "library" / name)[1]
        assert tensors_digest(outcome.learners[config.deployed]) == weights
        evaluation = Results(project / "runs" / name).read_evaluation()
        assert {*evaluation.learners} == {*learner_names(outcome.learners, config.evaluation)}
