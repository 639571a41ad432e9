"""Searches in MLflow: one run for a study, one below it for each trial, whoever tells it and however often."""

from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from generalist.config import flatten
from generalist.errors import BadInput
from pipelines.tracking import experiment_id, open_study
from pipelines.tracking.study_tracker import StudyTracker
from pipelines.trial_records import StudyRecord
from pipelines.workspace import Workspace
from tests import study_factory as studies
from tests import tracking_factory as factory


@pytest.fixture
def record() -> StudyRecord:
    """Complete, pruned, failed and running trials."""
    return studies.mixed(3)


def opened(workspace: Workspace, name: str = "a study") -> StudyTracker:
    """Return the run of a study."""
    return open_study(workspace, name, factory.config(), objective=("harmonic mean",), data_digest=factory.DATA.digest)


def nested(client: MlflowClient, parent: str) -> dict[int, Run]:
    """Return the runs below a run, as MLflow's pages find them, by the number of their trial; each number once."""
    experiment = client.get_run(parent).info.experiment_id
    found = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{parent}'")
    numbers = {int(run.data.tags["generalist.trial"]): run for run in found}
    assert len(numbers) == len(found)
    return numbers


def test_every_trial_that_ended_is_a_run_below_its_study(
    workspace: Workspace, client: MlflowClient, record: StudyRecord
) -> None:
    """Params, curve by epoch, values, remix, costs, state and reason; how each ended; those that run are left out."""
    tracker = opened(workspace)
    for trial in record.trials:
        tracker.tell(trial)
    runs = nested(client, tracker.run_id)
    assert {number: run.info.status for number, run in runs.items()} == {
        trial.number: {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}[trial.state]
        for trial in record.trials
        if trial.state != "running"
    }
    assert (runs[0].info.run_name, runs[3].info.run_name) == ("trial 0", "trial 3 (pruned)")
    for trial in record.trials[:-1]:
        data = runs[trial.number].data
        assert {path: str(value) for path, value in trial.params.items()}.items() <= data.params.items()
        assert data.tags["generalist.state"] == trial.state
        assert data.tags.get("generalist.reason") == trial.reason
        assert data.metrics["trial/epochs_trained"] == trial.epochs_trained
        assert ("trial/value" in data.metrics) == (trial.state == "complete")
    best = record.trials[0]
    data = runs[0].data
    assert best.validation is not None and best.remix is not None
    assert data.metrics["trial/value"] == best.values[0]
    assert data.metrics["trial/natural"] == best.validation.natural.value
    assert data.metrics["trial/robust"] == best.validation.robust.value
    assert data.metrics["remix/weight_robust"] == best.remix.weights["robust"]
    curve = factory.steps(client, runs[0].info.run_id, "global/validation_robust")
    assert curve == {point.epoch: point.validation.robust.value for point in best.curve}
    assert data.params["overrides"] == "mixing.interval=1 'experts.robust.optimizer={name: sgd, lr: 0.1}'"
    assert runs[0].info.end_time - runs[0].info.start_time == 1000 * best.seconds


def test_telling_twice_changes_nothing(workspace: Workspace, client: MlflowClient, record: StudyRecord) -> None:
    """In one sitting, in the next one, and after a process was killed in the middle of telling."""
    first = opened(workspace)
    for trial in [*record.trials, *record.trials]:
        first.tell(trial)
    before = nested(client, first.run_id)
    key, run_id = "global/validation_natural", before[0].info.run_id
    curve = client.get_metric_history(run_id, key)
    client.update_run(run_id, status="RUNNING")  # as if it had been killed before the last request
    first.stopped()
    second = opened(workspace)
    for trial in record.trials:
        second.tell(trial)
    after = nested(client, second.run_id)
    assert {n: run.info.run_id for n, run in after.items()} == {n: run.info.run_id for n, run in before.items()}
    assert {n: run.data.to_dictionary() for n, run in after.items()} == {
        n: run.data.to_dictionary() for n, run in before.items()
    }
    assert client.get_metric_history(run_id, key) == curve
    assert client.get_run(run_id).info.status == "FINISHED"


def test_a_resumed_study_goes_on_in_its_run(workspace: Workspace, client: MlflowClient, record: StudyRecord) -> None:
    """Stopped, killed or finished: the same parent, which shows that it runs again; another name has its own."""
    first = opened(workspace)
    first.tell(record.trials[0])
    first.stopped()
    assert client.get_run(first.run_id).info.status == "KILLED"
    second = opened(workspace)
    assert second.run_id == first.run_id
    assert client.get_run(first.run_id).info.status == "RUNNING"
    second._alive._lock.release()  # as the kernel does for a killed process
    other = opened(workspace, 'a study\'s "other" name')  # MLflow's queries know no way to quote both
    assert client.get_run(first.run_id).info.status == "KILLED"
    assert other.run_id != first.run_id
    assert opened(workspace, 'a study\'s "other" name').run_id == other.run_id
    third = opened(workspace)
    third.finish(record, [])
    fourth = opened(workspace)
    fourth.finish(record, [])
    assert fourth.run_id == first.run_id
    assert len(nested(client, first.run_id)) == len(record.trials) - 1
    assert len(client.get_metric_history(first.run_id, "study/value_by_trial")) == 3


def test_the_study_says_what_it_found_and_cost(
    workspace: Workspace, client: MlflowClient, record: StudyRecord, tmp_path: Path
) -> None:
    """Its configuration, the best trial's numbers with n, counts, epochs and files; nobody told of the trials before."""
    page = tmp_path / "tuning.html"
    page.write_text("<!doctype html>", encoding="utf-8")
    tracker = opened(workspace)
    tracker.finish(record, [page])
    run = client.get_run(tracker.run_id)
    best = record.trials[record.best or 0]
    assert run.info.status == "FINISHED"
    assert flatten(factory.config()).items() <= run.data.params.items()
    assert run.data.tags["generalist.study"] == "a study"
    assert run.data.tags["generalist.best"] == str(best.number)
    assert run.data.metrics["best/value"] == best.values[0]
    assert run.data.metrics["study/trials"] == len(record.trials)
    assert run.data.metrics["study/pruned"] == 3
    assert run.data.metrics["study/epochs_saved"] == sum(t.epochs_asked - t.epochs_trained for t in record.trials)
    assert "on 200 validation images" in run.data.tags["mlflow.note.content"]
    assert [file.path for file in client.list_artifacts(tracker.run_id)] == ["tuning.html"]
    assert len(nested(client, tracker.run_id)) == len(record.trials) - 1


def test_a_missing_file_is_named(workspace: Workspace, record: StudyRecord, tmp_path: Path) -> None:
    """Before the run is said to be finished."""
    with pytest.raises(BadInput, match=r"best\.yaml is missing"):
        opened(workspace).finish(record, [tmp_path / "best.yaml"])


def test_no_password_reaches_mlflow(workspace: Workspace, client: MlflowClient, record: StudyRecord) -> None:
    """A database repeats its address where it complains; the rest of the sentence stays."""
    failed = record.trials[-2].model_copy(update={"reason": "no answer from postgresql://me:s3cret@host/db"})
    tracker = opened(workspace)
    tracker.tell(failed)
    data = nested(client, tracker.run_id)[failed.number].data
    assert data.tags["generalist.reason"] == "no answer from postgresql://…@host/db"
    assert "s3cret" not in str(data.to_dictionary())


def test_several_objectives_are_told_apart(workspace: Workspace, client: MlflowClient) -> None:
    """One metric for each value, under its name."""
    record = studies.front()
    objective = ("natural accuracy", "robust accuracy")
    tracker = open_study(workspace, "front", factory.config(), objective=objective, data_digest=factory.DATA.digest)
    tracker.finish(record, [])
    metrics = nested(client, tracker.run_id)[0].data.metrics
    assert (metrics["trial/value_natural_accuracy"], metrics["trial/value_robust_accuracy"]) == record.trials[0].values


def test_long_curves_and_many_params_stay_within_the_limits(workspace: Workspace, client: MlflowClient) -> None:
    """MLflow takes 100 params and 1000 entities at once."""
    point = studies.mixed().trials[0].curve[0]
    trial = (
        studies.mixed()
        .trials[0]
        .model_copy(
            update={
                "curve": tuple(point.model_copy(update={"epoch": epoch}) for epoch in range(1, 401)),
                "params": {f"a.path{index}": index for index in range(150)},
            }
        )
    )
    tracker = opened(workspace)
    tracker.tell(trial)
    run = nested(client, tracker.run_id)[0]
    assert len(run.data.params) == 151
    assert len(factory.steps(client, run.info.run_id, "global/validation_harmonic")) == 400


def test_one_parent_among_the_runs_of_the_project(workspace: Workspace, client: MlflowClient) -> None:
    """Nested runs carry no study's tag, so that a search for studies finds studies."""
    tracker = opened(workspace)
    tracker.finish(studies.mixed(2), [])
    experiment = experiment_id(workspace, client)
    found = client.search_runs([experiment], "tags.`generalist.study` LIKE '%'")
    assert [run.info.run_id for run in found] == [tracker.run_id]
