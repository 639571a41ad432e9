"""The flow's tasks take plain values, so they run in threads, in processes or elsewhere, to the same bits."""

import json
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from prefect.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner

from generalist.attacks import Standing
from generalist.config import check, load, preset_names, to_yaml
from generalist.records import EpochRecord, History, RoundRecord
from generalist.store import tensors_digest
from generalist.training import Outcome, learners
from pipelines import artifacts, job, orchestration, submitting, tasks
from pipelines.results import Results
from pipelines.tracking import start
from pipelines.workspace import Workspace
from tests import tracking_factory
from tests.services import with_databases
from tests.training_factory import digests, small


class Listener:
    """Whoever follows a run."""

    def __init__(self) -> None:
        self.epochs: list[tuple[str, int, float]] = []
        self.rounds: list[tuple[int, str]] = []
        self.attacks: dict[tuple[str, str], tuple[float, int]] = {}

    def epoch(self, record: EpochRecord, total_epochs: int) -> None:
        """Keep an epoch."""
        self.epochs.append((record.expert, record.epoch, record.loss))

    def round(self, record: RoundRecord) -> None:
        """Keep a round."""
        self.rounds.append((record.epoch, record.digest))

    def attack(self, learner: str, standing: Standing) -> None:
        """Keep how an attack ended."""
        self.attacks[learner, standing.attack] = (standing.done, standing.robust)

    def say(self, text: str) -> None:
        """Nothing."""


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
    config = load(preset=name)
    carried = check(json.loads(json.dumps(config.model_dump(mode="json"))))
    assert to_yaml(carried) == to_yaml(config)


@pytest.mark.parametrize("followed", [True, False])
def test_arguments_that_travelled_as_json_give_the_same_bits(
    workspace: Workspace, prepared: Path, outcome: Outcome, monkeypatch: pytest.MonkeyPatch, followed: bool
) -> None:
    """Also where the tasks don't find the run: then their results tell what happened."""
    names = ("prepare", "advance", "mix", "evaluate", "export", "report")
    for name in names:
        monkeypatch.setattr(tasks, name, Carried(getattr(tasks, name)))
    for name in ("rounds", "final"):
        monkeypatch.setattr(artifacts, name, lambda _: None)
    if not followed:
        monkeypatch.setattr(job, "job_here", lambda _: None)
    staged = workspace.staging / "here"
    staged.mkdir(parents=True)
    config = small().model_dump(mode="json")
    spec: job.RunSpec = {
        "id": str(followed),
        "root": str(workspace.root),
        "here": str(workspace.here),
        "config": config,
        "data": str(prepared),
        "staged": str(staged),
    }
    training, listener = job.opened(spec), Listener()
    run = job.Job(training, start(workspace, training.config, tracking_factory.DATA), listener)
    with job.followed(run, spec):
        end = submitting.train(run, spec)
        evaluation = submitting.evaluate(run, spec, end, Results(staged))
        tasks.export("export", spec, end)
        tasks.report("report", spec, end)
    found = learners(training, job.ending_of(end))
    assert {name: tensors_digest(weights) for name, weights in found.items()} == digests(outcome)
    assert evaluation.chosen == outcome.chosen
    assert {(record.expert, record.epoch, record.loss) for record in outcome.history.epochs} == {*listener.epochs}
    assert len(listener.epochs) == len(outcome.history.epochs)
    assert [epoch for epoch, _ in listener.rounds] == [record.epoch for record in outcome.history.rounds]
    assert {learner for learner, _ in listener.attacks} == {*outcome.learners}
    assert Results(staged).onnx.is_file()
    assert Results(staged).report.is_file()


@pytest.mark.long
def test_threads_and_processes_give_the_same_bits(
    tmp_path: Path, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each trains anew; whoever follows the run is told the same."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / ".generalist" / "prefect"))
    project = with_databases(tmp_path, pytestconfig)
    (project / "dvc.yaml").touch()
    (project / "params.yaml").write_text(
        to_yaml(small("training.epochs=3", "evaluation.shards=2", "evaluation.images=600")), encoding="utf-8"
    )
    monkeypatch.chdir(project)
    made, told, histories = [], [], []
    with orchestration.server(Workspace.find(), warn=pytest.fail) as ready:
        from pipelines import flows

        ready()
        for runner in (ThreadPoolTaskRunner(max_workers=2), ProcessPoolTaskRunner(max_workers=2)):
            name = type(runner).__name__
            monkeypatch.setenv("GENERALIST_STORE", str(tmp_path / name))
            listener, outputs = Listener(), project / "runs" / name
            made.append(flows.run(watch=listener, overrides=[], outputs=outputs, task_runner=runner))
            told.append((sorted(listener.epochs), listener.rounds, listener.attacks.keys()))
            histories.append(History.read(Results(outputs).history).rounds)
            assert any((tmp_path / name).glob("*/*.safetensors"))
    assert made[0]["weights"] == made[1]["weights"]
    assert made[0]["onnx_sha256"] == made[1]["onnx_sha256"]
    assert histories[0] == histories[1]
    assert told[0] == told[1]
    assert told[0][0]
