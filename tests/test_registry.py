"""The registered model: once for each file, and champion only through all gates."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

from generalist.errors import BadInput
from pipelines.registry import find, promote, rollback
from pipelines.results import Results
from pipelines.results_manifest import write_manifest
from pipelines.tracking import sha256_of, start
from tests import tracking_factory as factory
from tests.registry_factory import BETTER, GOOD, OTHER_PROTOCOL, WORSE, Registry

pytestmark = pytest.mark.long


def test_the_first_model_becomes_champion(registry: Registry) -> None:
    """Its version knows its file, its run, its flow run, its numbers and what they mean."""
    registration = registry.register(GOOD, flow_run_id="f10w")
    assert (registration.version, registration.alias, registration.reasons, registration.new) == (
        1,
        "champion",
        (),
        True,
    )
    assert registration.sentence == f"{registry.name} version 1, champion"
    version = registry.client.get_model_version(registry.name, "1")
    assert version.run_id == registration.run_id
    assert version.tags["onnx_sha256"] == registration.sha256 == sha256_of(registry.results(GOOD).onnx)
    assert version.tags["prefect_flow_run_id"] == "f10w"
    assert float(version.tags["criterion_value"]) == pytest.approx(0.72)
    assert version.tags["protocol_digest"] == factory.PROTOCOL.digest()
    assert "natural 90.0 % [82.6, 94.5]" in version.description
    model = registry.client.get_logged_model(
        registry.client.get_run(registration.run_id).outputs.model_outputs[0].model_id
    )
    assert model.tags["mlflow.modelVersions"] == f'[{{"name": "{registry.name}", "version": 1}}]'


def test_the_registered_model_tells_of_its_champion(registry: Registry) -> None:
    """What it is, under which threat, how accurate, how to get it; a description of somebody's own stays."""

    def told() -> str:
        return str(registry.client.get_registered_model(registry.name).description)

    registry.register(factory.Model(seed=5, disagreements=1))
    assert told().endswith("No version is champion yet.")
    registry.register(GOOD)
    for part in ("float32 [batch,", "version 2.", "natural 90.0 %", "linf:8/255 60.0 %", f"models:/{registry.name}@"):
        assert part in told()
    registry.register(BETTER)
    assert "version 3." in told()
    rollback(registry.workspace, name=registry.name)
    assert "version 2." in told()
    registry.client.update_registered_model(registry.name, "ours")
    promote(registry.workspace, 3, name=registry.name, reason="a look")
    assert told() == "ours"


def test_equal_weights_and_protocol_are_the_same_version(registry: Registry, tmp_path: Path) -> None:
    """A retraining at another commit makes another file, and no other version: it is said which one it is."""
    for model in (GOOD, WORSE):
        before = registry.register(model)
        results = replace(model, commit="2222").write(
            tmp_path / f"again{model.seed}", settings=factory.config(registry=registry.section)
        )
        found = registry.take(results)
        assert (found.version, found.alias, found.new, found.equal) == (before.version, before.alias, False, True)
        assert found.sha256 == sha256_of(results.onnx) != before.sha256
        assert found.run_id != before.run_id  # its own run remembers the retraining
        assert found.sentence.startswith(
            f"{registry.name} version {before.version}, {before.alias},"
            " which has equal weights and an equal protocol, so nothing new is registered"
        )
        assert found.reasons == before.reasons
    assert before.alias == "challenger"
    assert len(registry.client.search_model_versions(f"name='{registry.name}'")) == 2


def test_what_differs_in_protocol_or_in_the_file_is_a_version_of_its_own(registry: Registry, tmp_path: Path) -> None:
    """Neither a mended export nor a new evaluation is lost."""
    registry.register(GOOD)
    others = (replace(GOOD, protocol=OTHER_PROTOCOL), replace(GOOD, drift=0.5), replace(GOOD, seed=17))
    for number, other in enumerate(others, 2):
        results = other.write(tmp_path / f"again{number}", settings=factory.config(registry=registry.section))
        found = registry.take(results)
        assert (found.version, found.new, found.equal) == (number, True, False)


def test_a_version_whose_file_is_gone_is_not_taken_for_the_same(registry: Registry, tmp_path: Path) -> None:
    """Nobody could download it."""
    model = replace(GOOD, seed=18)
    registry.register(model)
    Path(registry.client.get_model_version(registry.name, "1").source, "model.onnx").unlink()
    results = replace(model, commit="3333").write(
        tmp_path / "again", settings=factory.config(registry=registry.section)
    )
    assert registry.take(results).version == 2


def test_a_run_that_was_followed_is_the_versions_run(registry: Registry) -> None:
    """No second run is made for it."""
    model = replace(GOOD, seed=14)
    tracker = start(registry.workspace, factory.config(), factory.DATA)
    tracker.finish(registry.results(model))
    assert registry.register(model).run_id == tracker.run_id


def test_a_worse_model_is_challenger(registry: Registry) -> None:
    """The reason is a tag, and in the sentence. Registering either file again changes nothing."""
    champion = registry.register(GOOD)
    registration = registry.register(WORSE)
    assert (registration.version, registration.alias, registry.champion) == (2, "challenger", 1)
    (reason,) = registration.reasons
    assert reason == "on the validation split its harmonic value 0.6679 is not above the champion's 0.7200"
    assert registry.client.get_model_version(registry.name, "2").tags["reasons"] == reason
    assert registration.sentence == f"{registry.name} version 2, challenger: {reason}"
    for model, before in ((GOOD, champion), (WORSE, registration)):
        again = registry.register(model)
        assert again == before.model_copy(update={"new": False})
        assert "registered before" in again.sentence
    assert len(registry.client.search_model_versions(f"name='{registry.name}'")) == 2


def test_a_better_model_takes_over(registry: Registry) -> None:
    """The former champion is known; a challenger that wins is none any more."""
    registry.register(GOOD)
    assert registry.register(BETTER).alias == "champion"
    assert registry.champion == 2
    assert registry.client.get_model_version(registry.name, "2").tags["former_champion"] == "1"
    assert registry.register(GOOD).alias is None
    assert "without an alias now" in registry.register(GOOD).sentence


def test_better_on_validation_does_not_excuse_worse_on_test(registry: Registry) -> None:
    """Ten robust images lost for none won are no chance."""
    registry.register(GOOD)
    (reason,) = registry.register(factory.Model(seed=4, validation=(20, 20), robust=50)).reasons
    assert "robust accuracy on the test split is significantly worse" in reason
    assert "(10 images lost, 0 won, p = 0.00098 in McNemar's test at level 0.05)" in reason


def test_a_first_model_must_pass_on_its_own(registry: Registry) -> None:
    """There is no champion then, and the next good one becomes it."""
    for model in (factory.Model(seed=5, flags=("zero gradients",)), factory.Model(seed=19, disagreements=1)):
        assert registry.register(model).alias == "challenger"
        assert registry.champion is None
    assert registry.register(GOOD).alias == "champion"


def test_the_champion_is_evaluated_again_after_a_change_of_protocol(registry: Registry, tmp_path: Path) -> None:
    """By its own files; its run keeps the result, which serves the next model, too."""
    registry.register(replace(GOOD, seed=10))
    seen: list[set[str]] = []

    def reevaluate(kept: Results) -> Results:
        seen.append({path.name for path in kept.folder.iterdir()})
        return GOOD.reevaluated(tmp_path / f"again{len(seen)}", OTHER_PROTOCOL, validation=(20, 16))

    # Better than the champion was, by the former protocol; not better than it is by the present one.
    registration = registry.register(
        factory.Model(seed=6, protocol=OTHER_PROTOCOL, validation=(19, 13)), reevaluate=reevaluate
    )
    assert (registration.alias, registry.champion) == ("challenger", 1)
    assert "is not above the champion's 0.8889" in registration.reasons[0]
    assert seen[0] == {"global.safetensors", "params.yaml", "evaluation.json", "verdicts.npz"}
    better = factory.Model(seed=7, protocol=OTHER_PROTOCOL, validation=(20, 17))
    assert registry.register(better, reevaluate=reevaluate).alias == "champion"
    assert len(seen) == 1


def test_a_champion_that_cannot_be_evaluated_again_stays(registry: Registry) -> None:
    """The data have other classes, or nobody can evaluate: the reason says what to do."""
    registry.register(GOOD)

    def impossible(kept: Results) -> Results:
        raise BadInput("the data have 10 classes,\nthe model 4")

    registration = registry.register(factory.Model(seed=6, protocol=OTHER_PROTOCOL), reevaluate=impossible)
    (reason,) = registration.reasons
    assert reason == (
        "it can't be compared with the champion, version 1 (the data have 10 classes, the model 4):"
        " promote it with `generalist promote` if it should be champion"
    )
    registration = registry.register(factory.Model(seed=7, protocol=OTHER_PROTOCOL))
    assert registration.reasons == ("the champion was evaluated by another protocol (seed)",)
    assert registry.champion == 1


def test_a_champion_whose_files_are_gone_stays(registry: Registry) -> None:
    """Nothing can be compared with it: damaged, or deleted as by `mlflow gc`."""
    run_id = registry.register(replace(GOOD, seed=11)).run_id
    verdicts = Path(registry.client.get_run(run_id).info.artifact_uri, "verdicts.npz")
    verdicts.write_bytes(b"")
    (reason,) = registry.register(BETTER).reasons
    assert f"verdicts.npz of its run {run_id} is damaged, or was changed after it was registered" in reason
    verdicts.unlink()
    (reason,) = registry.register(WORSE).reasons
    assert f"the files of its run {run_id} are gone" in reason
    assert registry.champion == 1


def test_a_registration_that_was_killed_is_taken_up_again(registry: Registry) -> None:
    """After the version was made, before its alias was set: no second version, and the gates decide again."""
    registry.register(GOOD)
    registry.client.delete_registered_model_alias(registry.name, "champion")
    registry.client.delete_model_version_tag(registry.name, "1", "decided")
    again = registry.register(GOOD)
    assert (again.version, again.alias, again.new) == (1, "champion", True)


def test_damaged_results_are_not_registered(registry: Registry) -> None:
    """No version is made."""
    results = registry.results(replace(GOOD, seed=15))
    results.parity.write_text("{", encoding="utf-8")
    write_manifest(results)
    with pytest.raises(BadInput, match=r"parity\.json is missing or damaged"):
        registry.take(results)
    assert find(registry.workspace, sha256_of(results.onnx)).versions == ()


def test_an_error_of_the_registry_is_not_taken_for_absence(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry that fails must not make any model the first champion."""
    registry.register(GOOD)

    def fails(*_: Any, **__: Any) -> None:
        raise mlflow.MlflowException("out of order")

    monkeypatch.setattr(MlflowClient, "get_registered_model", fails)
    with pytest.raises(mlflow.MlflowException, match="out of order"):
        registry.register(WORSE)
    monkeypatch.undo()
    monkeypatch.setattr(MlflowClient, "create_registered_model", fails)
    with pytest.raises(mlflow.MlflowException, match="out of order"):
        registry.register(WORSE)
