"""Runs that nobody ended or opened: of killed processes, and of results that were there already."""

import time

import pytest
from mlflow import MlflowClient

from generalist.config import flatten
from generalist.errors import BadInput
from pipelines.results import Results
from pipelines.tracking import connect, publish, start
from pipelines.tracking.mlflow_database import EXPERIMENT
from pipelines.workspace import Workspace
from tests import processes
from tests import tracking_factory as factory


@processes.forking
def test_killed_runs_are_ended_and_living_ones_are_not(workspace: Workspace) -> None:
    """`kill -9` leaves a run that seems to run; the next start ends it, and no other."""
    note = workspace.root / "run"

    def train() -> None:
        tracker = start(workspace, factory.config(), factory.DATA)
        note.write_text(tracker.run_id, encoding="ascii")
        time.sleep(600)
        tracker.fail()

    with processes.another_process(train):
        processes.until(lambda: note.exists() and note.read_text(encoding="ascii") != "")
        killed, client = note.read_text(encoding="ascii"), connect(workspace)
        foreign = client.create_run("1", run_name="of another workspace").info.run_id
        living = start(workspace, factory.config(), factory.DATA)
        assert {run.info.status for run in client.search_runs(["1"])} == {"RUNNING"}
    started = start(workspace, factory.config(), factory.DATA)
    status = {run.info.run_id: run.info.status for run in client.search_runs(["1"])}
    assert status == {killed: "KILLED", foreign: "RUNNING", living.run_id: "RUNNING", started.run_id: "RUNNING"}
    assert len(list(workspace.locks.glob("run-*.lock"))) == 2


def test_outputs_without_a_run_get_one(workspace: Workspace, client: MlflowClient, results: Results) -> None:
    """As complete as one that was followed; a second time, and after a followed one, there is nothing to do."""
    run_id = publish(workspace, results)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == flatten(factory.config())
    assert run.data.tags["data_digest"] == factory.DATA.digest
    assert (run.data.tags["git_commit"], run.data.tags["git_dirty"]) == ("c0ffee", "false")
    assert factory.steps(client, run_id, "natural/loss")[6] == 1 / 6
    assert factory.steps(client, run_id, "global/validation_natural") == {4: 0.8, 6: 0.9}
    assert publish(workspace, results) == run_id
    assert len(client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])) == 1


def test_a_followed_run_is_not_published_again(workspace: Workspace, results: Results) -> None:
    """The file's SHA-256 finds it."""
    tracker = start(workspace, factory.config(), factory.DATA)
    tracker.finish(results)
    assert publish(workspace, results) == tracker.run_id


def test_damaged_outputs_are_not_published(workspace: Workspace, client: MlflowClient, results: Results) -> None:
    """No run is complete that lacks something, and the sentence says what."""
    results.report.unlink()
    with pytest.raises(BadInput, match=r"report\.html is missing"):
        publish(workspace, results)
    assert [run.info.status for run in client.search_runs(["1"])] == ["FAILED"]
    results.history.write_text("{", encoding="utf-8")
    with pytest.raises(BadInput, match=r"history\.json is missing or damaged"):
        publish(workspace, results)
