"""The registered model: once for each file, champion through all gates, and the way back."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
import tracking_factory as factory
from mlflow import MlflowClient

from generalist.errors import BadInput
from pipelines.registry import Registration, download, find, promote, register, rollback
from pipelines.registry.versions import described, with_alias
from pipelines.results import Results
from pipelines.tracking import connect, sha256_of, start
from pipelines.workspace import Workspace

OTHER_PROTOCOL = factory.PROTOCOL.model_copy(update={"seed": 1})
GOOD, BETTER, WORSE = (
    factory.Model(seed=1),
    factory.Model(seed=2, validation=(19, 13)),
    factory.Model(seed=3, validation=(17, 11)),
)
Register = Callable[..., Registration]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A project that all tests share, so that a model's run is made only once; each registers under its own name."""
    return factory.workspace(tmp_path_factory.mktemp("project"))


@pytest.fixture
def client(workspace: Workspace) -> MlflowClient:
    """A client of its database."""
    return connect(workspace)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """The registered model of this test."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", request.node.name)


@pytest.fixture
def written(tmp_path: Path, name: str) -> Callable[[factory.Model], Results]:
    """Writes a model's results."""
    settings = factory.config(registry={"name": name})

    def write(model: factory.Model) -> Results:
        folder = tmp_path / f"outputs{model.seed}"
        return Results(folder) if folder.exists() else model.write(folder, settings=settings)

    return write


@pytest.fixture
def registered(workspace: Workspace, written: Callable[[factory.Model], Results]) -> Register:
    """Registers a model."""

    def register_model(model: factory.Model, **options: Any) -> Registration:
        return register(workspace, written(model), **options)

    return register_model


def champion(client: MlflowClient, name: str) -> int | None:
    """The champion's version."""
    found = with_alias(client, name, "champion")
    return found.version if found else None


def test_the_first_model_becomes_champion(
    client: MlflowClient, registered: Register, written: Callable[[factory.Model], Results], name: str
) -> None:
    """Its version knows its file, its run, its flow run, its numbers and what they mean."""
    found = registered(GOOD, flow_run_id="f10w")
    assert (found.version, found.alias, found.reasons, found.new) == (1, "champion", (), True)
    assert found.sentence == f"{name} version 1, champion"
    version = client.get_model_version(name, "1")
    assert version.run_id == found.run_id
    assert version.tags["onnx_sha256"] == found.sha256 == sha256_of(written(GOOD).onnx)
    assert version.tags["prefect_flow_run_id"] == "f10w"
    assert float(version.tags["criterion_value"]) == pytest.approx(0.72)
    assert version.tags["protocol_digest"] == factory.PROTOCOL.digest()
    assert "natural 90.0 % [82.6, 94.5]" in version.description
    model = client.get_logged_model(client.get_run(found.run_id).outputs.model_outputs[0].model_id)
    assert model.tags["mlflow.modelVersions"] == f'[{{"name": "{name}", "version": 1}}]'


def test_registering_a_file_again_changes_nothing(client: MlflowClient, registered: Register, name: str) -> None:
    """Neither champion nor challenger, neither versions nor runs."""
    first, worse = registered(GOOD), registered(WORSE)
    for model, before in ((GOOD, first), (WORSE, worse)):
        again = registered(model)
        assert again == before.model_copy(update={"new": False})
        assert "registered before" in again.sentence
    assert len(client.search_model_versions(f"name='{name}'")) == 2


def test_a_run_that_was_followed_is_the_versions_run(
    workspace: Workspace, registered: Register, written: Callable[[factory.Model], Results]
) -> None:
    """No second run is made for it."""
    model = replace(GOOD, seed=14)
    tracker = start(workspace, factory.config(), factory.DATA)
    tracker.finish(written(model))
    assert registered(model).run_id == tracker.run_id


def test_a_worse_model_is_challenger(client: MlflowClient, registered: Register, name: str) -> None:
    """The reason is a tag, and in the sentence."""
    registered(GOOD)
    found = registered(WORSE)
    assert (found.version, found.alias, champion(client, name)) == (2, "challenger", 1)
    (reason,) = found.reasons
    assert reason == "on the validation split its harmonic value 0.6679 is not above the champion's 0.7200"
    assert client.get_model_version(name, "2").tags["reasons"] == reason
    assert found.sentence == f"{name} version 2, challenger: {reason}"


def test_a_better_model_takes_over(client: MlflowClient, registered: Register, name: str) -> None:
    """The former champion is known; a challenger that wins is none any more."""
    registered(GOOD)
    assert registered(BETTER).alias == "champion"
    assert champion(client, name) == 2
    assert client.get_model_version(name, "2").tags["former_champion"] == "1"
    assert registered(GOOD).alias is None
    assert "without an alias now" in registered(GOOD).sentence


def test_better_on_validation_does_not_excuse_worse_on_test(registered: Register) -> None:
    """Ten robust images lost for none won are no chance."""
    registered(GOOD)
    (reason,) = registered(factory.Model(seed=4, validation=(20, 20), robust=50)).reasons
    assert "robust accuracy on the test split is significantly worse" in reason
    assert "(10 images lost, 0 won, p = 0.00098 in McNemar's test at level 0.05)" in reason


@pytest.mark.parametrize(
    "model", [factory.Model(seed=5, flags=("zero gradients",)), factory.Model(seed=5, disagreements=1)]
)
def test_a_first_model_must_pass_on_its_own(
    client: MlflowClient, registered: Register, model: factory.Model, name: str
) -> None:
    """There is no champion then, and the next good one becomes it."""
    assert registered(model).alias == "challenger"
    assert champion(client, name) is None
    assert registered(GOOD).alias == "champion"


def test_the_champion_is_evaluated_again_after_a_change_of_protocol(
    client: MlflowClient, registered: Register, tmp_path: Path, name: str
) -> None:
    """By its own files; its run keeps the result, which serves the next model, too."""
    registered(replace(GOOD, seed=10))
    seen: list[set[str]] = []

    def reevaluate(kept: Results) -> Results:
        seen.append({path.name for path in kept.folder.iterdir()})
        return GOOD.reevaluated(tmp_path / f"again{len(seen)}", OTHER_PROTOCOL, validation=(20, 16))

    # Better than the champion was, by the former protocol; not better than it is by the present one.
    found = registered(factory.Model(seed=6, protocol=OTHER_PROTOCOL, validation=(19, 13)), reevaluate=reevaluate)
    assert (found.alias, champion(client, name)) == ("challenger", 1)
    assert "is not above the champion's 0.8889" in found.reasons[0]
    assert seen[0] == {"global.safetensors", "params.yaml", "evaluation.json", "verdicts.npz"}
    better = factory.Model(seed=7, protocol=OTHER_PROTOCOL, validation=(20, 17))
    assert registered(better, reevaluate=reevaluate).alias == "champion"
    assert len(seen) == 1


def test_a_champion_that_cannot_be_evaluated_again_stays(client: MlflowClient, registered: Register, name: str) -> None:
    """The data have other classes, or nobody can evaluate: the reason says what to do."""
    registered(GOOD)

    def impossible(kept: Results) -> Results:
        raise BadInput("the data have 10 classes,\nthe model 4")

    found = registered(factory.Model(seed=6, protocol=OTHER_PROTOCOL), reevaluate=impossible)
    assert found.reasons == (
        "it can't be compared with the champion, version 1 (the data have 10 classes, the model 4): promote it with `generalist promote` if it should be champion",
    )
    found = registered(factory.Model(seed=7, protocol=OTHER_PROTOCOL))
    assert found.reasons == ("the champion was evaluated by another protocol (seed)",)
    assert champion(client, name) == 1


def test_a_champion_whose_files_are_gone_stays(client: MlflowClient, registered: Register, name: str) -> None:
    """Nothing can be compared with it: damaged, or deleted as by `mlflow gc`."""
    run_id = registered(replace(GOOD, seed=11)).run_id
    verdicts = Path(client.get_run(run_id).info.artifact_uri, "verdicts.npz")
    verdicts.write_bytes(b"")
    (reason,) = registered(BETTER).reasons
    assert f"the evaluation that its run {run_id} keeps is damaged" in reason
    verdicts.unlink()
    (reason,) = registered(WORSE).reasons
    assert f"the files of its run {run_id} are gone" in reason
    assert champion(client, name) == 1


def test_a_registration_that_was_killed_is_taken_up_again(
    client: MlflowClient, registered: Register, name: str
) -> None:
    """After the version was made, before its alias was set: no second version, and the gates decide again."""
    registered(GOOD)
    client.delete_registered_model_alias(name, "champion")
    client.delete_model_version_tag(name, "1", "decided")
    again = registered(GOOD)
    assert (again.version, again.alias, again.new) == (1, "champion", True)


def test_damaged_results_are_not_registered(
    workspace: Workspace, client: MlflowClient, written: Callable[[factory.Model], Results]
) -> None:
    """No version is made."""
    results = written(replace(GOOD, seed=15))
    results.parity.write_text("{", encoding="utf-8")
    with pytest.raises(BadInput, match=r"parity\.json is missing or damaged"):
        register(workspace, results)
    assert find(workspace, sha256_of(results.onnx)).versions == ()


def test_rollback_is_one_step_back_each_time(
    workspace: Workspace, client: MlflowClient, registered: Register, name: str
) -> None:
    """To the champion before, and the one before that; the file that was rolled back does not come back by itself."""
    best = factory.Model(seed=8, validation=(20, 14))
    for model in (GOOD, BETTER, best):
        registered(model)
    assert str(rollback(workspace, name=name)) == f"{name} version 2 is champion now instead of version 3"
    assert registered(best).alias is None
    assert client.get_model_version(name, "3").tags["rolled_back"] == "to version 2"
    assert rollback(workspace, name=name).now == 1
    with pytest.raises(BadInput, match="version 1 is the first champion: there is none to go back to"):
        rollback(workspace, name=name)


def test_rollback_to_a_deleted_version_is_refused(
    workspace: Workspace, client: MlflowClient, registered: Register, name: str
) -> None:
    """The champion stays."""
    registered(GOOD)
    registered(BETTER)
    client.delete_model_version(name, "1")
    with pytest.raises(BadInput, match="has no version '1': it has versions 2 and aliases champion"):
        rollback(workspace, name=name)
    assert champion(client, name) == 2


def test_a_challenger_can_be_promoted_by_hand(
    workspace: Workspace, client: MlflowClient, registered: Register, name: str
) -> None:
    """The reason is kept, and it can be rolled back."""
    registered(GOOD)
    registered(WORSE)
    move = promote(workspace, 2, name=name, reason="new classes")
    assert str(move) == f"{name} version 2 is champion now instead of version 1"
    promoted = described(client, name, "2")
    assert promoted.aliases == ("champion",)
    assert promoted.tags["promoted_by_hand"] == "new classes"
    with pytest.raises(BadInput, match="version 2 is champion already"):
        promote(workspace, 2, name=name, reason="again")
    assert rollback(workspace, name=name).now == 1


def test_the_first_champion_may_come_by_hand(workspace: Workspace, registered: Register, name: str) -> None:
    """Where all were refused."""
    registered(factory.Model(seed=5, flags=("zero gradients",)))
    assert str(promote(workspace, 1, name=name, reason="checked")) == f"{name} version 1 is champion now"


@pytest.mark.parametrize("reference", ["champion", "7", "nobody"])
def test_an_unknown_version_is_refused(
    workspace: Workspace, registered: Register, tmp_path: Path, reference: str, name: str
) -> None:
    """The sentence says which there are; before the first registration, that there are none."""
    with pytest.raises(BadInput, match=f"has no version '{reference}': nothing is registered yet"):
        download(workspace, tmp_path / "model.onnx", name=name, reference=reference)
    registered(factory.Model(seed=5, flags=("zero gradients",)))
    with pytest.raises(BadInput, match="it has versions 1 and aliases challenger"):
        download(workspace, tmp_path / "model.onnx", name=name, reference=reference)


@pytest.mark.parametrize("reference", ["champion", "1"])
def test_a_download_is_the_file(
    workspace: Workspace,
    registered: Register,
    written: Callable[[factory.Model], Results],
    tmp_path: Path,
    reference: str,
    name: str,
) -> None:
    """Byte for byte, under the given name or in the given folder, with nothing left beside it."""
    registered(GOOD)
    file = download(workspace, tmp_path / "new" / "my.onnx", name=name, reference=reference)
    folder = download(workspace, tmp_path / "new", name=name, reference=reference)
    assert file.read_bytes() == folder.read_bytes() == written(GOOD).onnx.read_bytes()
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"my.onnx", "model.onnx"}


def test_mlflows_own_download_is_the_file(
    workspace: Workspace,
    registered: Register,
    written: Callable[[factory.Model], Results],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """As `mlflow artifacts download --artifact-uri models:/generalist@champion` does."""
    registered(GOOD)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", workspace.tracking_uri)
    folder = mlflow.artifacts.download_artifacts(f"models:/{name}@champion", dst_path=str(tmp_path / "away"))
    assert Path(folder, "model.onnx").read_bytes() == written(GOOD).onnx.read_bytes()


def test_a_changed_file_is_not_handed_out(
    workspace: Workspace, client: MlflowClient, registered: Register, tmp_path: Path, name: str
) -> None:
    """Nor one that is gone; the target is left alone."""
    registered(replace(GOOD, seed=12))
    held = Path(client.get_model_version_download_uri(name, "1"), "model.onnx")
    held.write_bytes(held.read_bytes()[:-1] + b"?")
    with pytest.raises(BadInput, match="version 1 was changed after it was registered: restore"):
        download(workspace, tmp_path / "model.onnx", name=name)
    held.unlink()
    with pytest.raises(BadInput, match=r"version 1 is gone from .*: restore it there"):
        download(workspace, tmp_path / "model.onnx", name=name)
    assert not (tmp_path / "model.onnx").exists()


def test_a_target_that_cannot_be_written_is_refused(
    workspace: Workspace, registered: Register, tmp_path: Path, name: str
) -> None:
    """A file where a folder should be."""
    registered(GOOD)
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match=r"file/model\.onnx can't be written .*: name another file"):
        download(workspace, tmp_path / "file" / "model.onnx", name=name)


def test_a_file_leads_to_its_runs_and_versions(workspace: Workspace, registered: Register) -> None:
    """By its SHA-256; an unknown file leads nowhere."""
    found = registered(replace(GOOD, seed=13))
    traced = find(workspace, found.sha256)
    assert traced.runs == (found.run_id,)
    assert [(version.version, version.aliases) for version in traced.versions] == [(1, ("champion",))]
    assert find(workspace, "0" * 64) == traced.model_copy(update={"runs": (), "versions": ()})


def test_an_error_of_the_registry_is_not_taken_for_absence(
    client: MlflowClient, registered: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registry that fails must not make any model the first champion."""
    registered(GOOD)

    def fails(*_: Any, **__: Any) -> None:
        raise mlflow.MlflowException("out of order")

    monkeypatch.setattr(MlflowClient, "get_registered_model", fails)
    with pytest.raises(mlflow.MlflowException, match="out of order"):
        registered(WORSE)
    monkeypatch.undo()
    monkeypatch.setattr(MlflowClient, "create_registered_model", fails)
    with pytest.raises(mlflow.MlflowException, match="out of order"):
        registered(WORSE)
