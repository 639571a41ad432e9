"""MLflow's runs: complete, tied to their model, ended whatever the end, and no secret in them."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import onnx
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from generalist.config import flatten, params_digest
from generalist.errors import BadInput
from generalist.records import RoundRecord
from pipelines.results import Results
from pipelines.tracking import finished_runs, run_metadata, runs, sha256_of, start
from pipelines.tracking import tracker as tracker_module
from pipelines.tracking.tracker import Tracker
from pipelines.workspace import Workspace
from tests import tracking_factory as factory


@pytest.fixture
def tracker(workspace: Workspace) -> Tracker:
    """An open run."""
    return start(workspace, factory.config(), factory.DATA, tags={"door": "test"})


def test_a_run_says_what_it_is_made_from(workspace: Workspace, client: MlflowClient, tracker: Tracker) -> None:
    """Name, every option, digests of parameters and data, the data as an input, the caller's tags."""
    run = client.get_run(tracker.run_id)
    assert run.info.run_name == tracker.name == "digits · natural + other · t'=4 c=2 · seed 0"
    assert run.info.artifact_uri.startswith(str(workspace.root / "mlruns"))
    assert run.data.params == flatten(factory.config())
    assert run.data.params["evaluation.threats"] == "[{'norm': 'linf', 'eps': '8/255'}]"
    assert run.data.tags["params_digest"] == params_digest(factory.config())
    assert run.data.tags["data_digest"] == factory.DATA.digest
    assert run.data.tags["door"] == "test"
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("digits", factory.DATA.digest[:36])
    assert data.dataset.profile == '{"train": 50, "validation": 20, "test": 100}'


def test_a_run_is_no_global_state(tracker: Tracker) -> None:
    """No active run, no address: other threads and other projects in this process are not touched."""
    assert mlflow.active_run() is None
    assert "MLFLOW_TRACKING_URI" not in os.environ
    assert tracker.link is None  # a database has no page


def test_no_secret_of_the_environment_is_logged(
    workspace: Workspace, client: MlflowClient, monkeypatch: pytest.MonkeyPatch, results: Results
) -> None:
    """Neither in tags, nor in parameters, nor in files."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
    tracker = start(workspace, factory.config(), factory.DATA)
    tracker.finish(results)
    data = client.get_run(tracker.run_id).data
    assert "hunter2" not in str([data.tags, data.params])
    kept = [path for path in workspace.artifacts.rglob("*") if path.is_file()]
    assert len(kept) > len(results.all())
    assert not any(b"hunter2" in path.read_bytes() for path in kept)


def test_metrics_lie_at_their_epochs(client: MlflowClient, tracker: Tracker) -> None:
    """Each expert under its name, the global learner under its; what is told twice is logged once."""
    course = factory.history()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(tracker.epoch, [*course.epochs, *course.epochs]))
    for _ in range(2):
        tracker.log(course.course[0])
        tracker.log(course.rounds[0])
    assert factory.steps(client, tracker.run_id, "natural/loss") == {epoch: 1 / epoch for epoch in range(1, 7)}
    assert factory.steps(client, tracker.run_id, "other/images_per_second") == dict.fromkeys(range(1, 7), 50.0)
    assert factory.steps(client, tracker.run_id, "natural/validation_robust") == {6: 0.25}
    assert factory.steps(client, tracker.run_id, "global/validation_natural") == {4: 0.8}
    assert factory.steps(client, tracker.run_id, "mixing/weight_other") == {4: 0.5}
    assert tracker.run_id in [run.info.run_id for run in client.search_runs(["1"], "metrics.`other/loss` > 0")]


@pytest.mark.parametrize("fails", [False, True])
def test_short_epochs_travel_together_and_none_is_lost(
    client: MlflowClient, tracker: Tracker, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """With the next round or the end, whichever comes first, also where a request was refused meanwhile."""
    monkeypatch.setattr(tracker_module, "_SECOND", 600.0)
    course = factory.history()
    for record in course.epochs:
        tracker.epoch(record)
    assert factory.steps(client, tracker.run_id, "natural/loss") == {}
    if fails:
        with monkeypatch.context() as broken:
            broken.setattr(runs, "_ENTITIES_A_CALL", None)  # no request can be made
            with pytest.raises(TypeError):
                tracker.log(course.rounds[0])
        tracker.fail()
    else:
        tracker.log(course.rounds[0])
    assert factory.steps(client, tracker.run_id, "natural/loss") == {epoch: 1 / epoch for epoch in range(1, 7)}
    assert factory.steps(client, tracker.run_id, "mixing/weight_other") == {4: 0.5}


def test_rounds_of_an_unmixed_training_are_the_experts_own() -> None:
    """The candidate is the expert itself: its metrics have the expert's name."""
    record: RoundRecord = factory.history().rounds[0].model_copy(update={"weights": {}})
    names = set(run_metadata.metrics(record, deployed="natural"))
    assert {"natural/validation_natural", "natural/validation_robust"} < names
    assert not any(name.startswith(("global", "mixing/weight")) for name in names)


def test_the_run_name_tells_the_schedule() -> None:
    """Mixing in steps, and no mixing at all."""
    stepwise = {"warm_up": 4, "interval": {"steps": 10}, "weights": {"other": 0.5}}
    assert run_metadata.run_name(factory.config(mixing=stepwise, seed=7)).endswith("t'=4 c=10 steps · seed 7")
    alone = factory.config(mixing=None, deploy="expert:other")
    assert run_metadata.run_name(alone) == "digits · natural + other · 6 epochs · seed 0"


def test_long_values_are_cut(tmp_path: Path) -> None:
    """MLflow refuses longer ones."""
    settings = factory.config(data={"name": "folder", "path": "x" * 7000})
    assert len(run_metadata.params(settings)["data.path"]) == run_metadata.LONGEST_PARAM
    assert len(run_metadata.tags_of({"reason": "x" * 9000})["reason"]) == run_metadata.LONGEST_TAG


def test_the_logged_model_is_the_file(client: MlflowClient, tracker: Tracker, results: Results) -> None:
    """Byte for byte, as one file, with its signature, and MLflow can load it."""
    tracker.finish(results)
    run = client.get_run(tracker.run_id)
    (output,) = run.outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    stored = Path(model.artifact_location)
    assert (stored / "model.onnx").read_bytes() == results.onnx.read_bytes()
    assert not list(stored.glob("*.data"))
    described = mlflow.models.Model.load(str(stored))
    assert described.get_input_schema().to_dict()[0]["tensor-spec"]["shape"] == (-1, 3, 4, 5)
    assert described.get_output_schema().input_names() == ["logits"]
    assert (model.name, model.status, output.step) == ("global", "READY", 6)


def test_the_file_is_copied_and_not_written_anew(client: MlflowClient, tracker: Tracker, results: Results) -> None:
    """Another serialisation of the same model has other bytes, and so another SHA-256."""
    written_otherwise = results.onnx.read_bytes() + onnx.ModelProto(ir_version=10).SerializeToString()
    assert onnx.load_from_string(written_otherwise) == onnx.load(results.onnx)
    results.onnx.write_bytes(written_otherwise)
    tracker.finish(results)
    (output,) = client.get_run(tracker.run_id).outputs.model_outputs
    held = Path(client.get_logged_model(output.model_id).artifact_location, "model.onnx")
    assert held.read_bytes() == written_otherwise


def test_final_metrics_are_tied_to_the_model(client: MlflowClient, tracker: Tracker, results: Results) -> None:
    """At the chosen epoch, with the test split's digest; every learner's are in the run."""
    tracker.finish(results)
    run = client.get_run(tracker.run_id)
    model = client.get_logged_model(run.outputs.model_outputs[0].model_id)
    tied = {metric.key: metric for metric in model.metrics}
    assert tied["test/robust_standard"].value == 0.6
    assert tied["test/global/linf:8_255/standard"].dataset_digest == factory.PROTOCOL.test_digest[:36]
    assert {metric.step for metric in tied.values()} == {6}
    assert run.data.metrics["test/other/natural"] == 0.9
    assert run.data.metrics["chosen/validation_natural"] == 0.9
    assert "test/other/natural" not in tied


def test_a_finished_run_is_complete(client: MlflowClient, tracker: Tracker, results: Results) -> None:
    """Its files, its digests, a sentence for people, and its end; finishing again changes nothing."""
    tracker.finish(results)
    tracker.finish(results)
    run = client.get_run(tracker.run_id)
    kept = {file.path for file in client.list_artifacts(tracker.run_id)}
    assert kept == {path.name for path in results.all()} - {"model.onnx"}
    assert run.info.status == "FINISHED"
    assert run.data.tags["onnx_sha256"] == sha256_of(results.onnx)
    assert run.data.tags["weights_sha256"] == factory.Model().evaluation().headline.digest
    assert run.data.tags["protocol_digest"] == factory.PROTOCOL.digest()
    assert "natural 90.0 % [82.6, 94.5]" in run.data.tags["mlflow.note.content"]
    assert len(run.outputs.model_outputs) == 1


def test_other_bytes_in_mlflow_are_noticed(
    client: MlflowClient, tracker: Tracker, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that damages the file is found out, and the run is no complete one."""
    upload = MlflowClient.log_model_artifacts

    def damaged(self: MlflowClient, model_id: str, local_dir: str) -> None:
        path = Path(local_dir, "model.onnx")
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        upload(self, model_id, local_dir)

    monkeypatch.setattr(MlflowClient, "log_model_artifacts", damaged)
    with pytest.raises(BadInput, match=r"MLflow holds other bytes than .* after the upload"):
        tracker.finish(results)
    assert not finished_runs(client, "1", {"onnx_sha256": sha256_of(results.onnx)})


@pytest.mark.parametrize("name", ["report.html", "model.onnx", "evaluation.json"])
def test_results_that_lack_a_file_are_refused(
    client: MlflowClient, tracker: Tracker, results: Results, name: str
) -> None:
    """The sentence names the file and how to make it."""
    (results.folder / name).unlink()
    with pytest.raises(BadInput, match=rf"{name} .*: make it with `dvc repro`"):
        tracker.finish(results)
    assert client.get_run(tracker.run_id).info.status == "RUNNING"


def failed(tracker: Tracker, client: MlflowClient, error: BaseException) -> Run:
    """Return the run of a training that ended with an exception."""
    try:
        raise error
    except BaseException:  # noqa: BLE001  as a flow does
        tracker.fail()
    return client.get_run(tracker.run_id)


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (BadInput("the data changed"), "FAILED", "the data changed"),
        (RuntimeError("password=hunter2"), "FAILED", "RuntimeError"),
        (KeyboardInterrupt(), "KILLED", "KeyboardInterrupt"),
    ],
)
def test_a_failure_is_told(
    client: MlflowClient, tracker: Tracker, error: BaseException, status: str, reason: str
) -> None:
    """The status tells a failure from a stop; of other people's exceptions only the type is kept."""
    run = failed(tracker, client, error)
    assert (run.info.status, run.data.tags["reason"]) == (status, reason)


def test_what_fails_later_is_not_the_training(client: MlflowClient, tracker: Tracker, results: Results) -> None:
    """A finished run stays finished."""
    tracker.finish(results)
    assert failed(tracker, client, RuntimeError()).info.status == "FINISHED"
