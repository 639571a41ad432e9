"""Versions of the registered model: the way back, the way past the gates, and the way out."""

from dataclasses import replace
from pathlib import Path

import mlflow
import pytest

from generalist.errors import BadInput
from pipelines.registry import download, find, promote, rollback
from pipelines.registry.model_versions import described
from tests import tracking_factory as factory
from tests.registry_factory import BETTER, GOOD, WORSE, Registry

pytestmark = pytest.mark.long


def test_rollback_is_one_step_back_each_time(registry: Registry) -> None:
    """To the champion before, and the one before that; the file that was rolled back does not come back by itself."""
    best = factory.Model(seed=8, validation=(20, 14))
    for model in (GOOD, BETTER, best):
        registry.register(model)
    assert (
        str(rollback(registry.workspace, name=registry.name))
        == f"{registry.name} version 2 is champion now instead of version 3"
    )
    assert registry.register(best).alias is None
    assert registry.client.get_model_version(registry.name, "3").tags["rolled_back"] == "to version 2"
    assert rollback(registry.workspace, name=registry.name).now == 1
    with pytest.raises(BadInput, match="version 1 is the first champion: there is none to go back to"):
        rollback(registry.workspace, name=registry.name)


def test_rollback_to_a_deleted_version_is_refused(registry: Registry) -> None:
    """The champion stays."""
    registry.register(GOOD)
    registry.register(BETTER)
    registry.client.delete_model_version(registry.name, "1")
    with pytest.raises(BadInput, match="has no version '1': it has versions 2 and aliases champion"):
        rollback(registry.workspace, name=registry.name)
    assert registry.champion == 2


def test_a_challenger_can_be_promoted_by_hand(registry: Registry) -> None:
    """Also where all were refused. The reason is kept, and it can be rolled back."""
    registry.register(factory.Model(seed=5, flags=("zero gradients",)))
    first = promote(registry.workspace, 1, name=registry.name, reason="checked")
    assert str(first) == f"{registry.name} version 1 is champion now"
    registry.register(WORSE)
    move = promote(registry.workspace, 2, name=registry.name, reason="new classes")
    assert str(move) == f"{registry.name} version 2 is champion now instead of version 1"
    promoted = described(registry.client, registry.name, "2")
    assert promoted.aliases == ("champion",)
    assert promoted.tags["promoted_by_hand"] == "new classes"
    with pytest.raises(BadInput, match="version 2 is champion already"):
        promote(registry.workspace, 2, name=registry.name, reason="again")
    assert rollback(registry.workspace, name=registry.name).now == 1


def test_an_unknown_version_is_refused(registry: Registry, tmp_path: Path) -> None:
    """The sentence says which there are; before the first registration, that there are none."""

    def refused(reference: str) -> str:
        with pytest.raises(BadInput, match=f"has no version '{reference}': ") as told:
            download(registry.workspace, tmp_path / "model.onnx", name=registry.name, reference=reference)
        return str(told.value).partition(": ")[2]

    references = ("champion", "7", "nobody")
    assert {refused(reference) for reference in references} == {"nothing is registered yet"}
    registry.register(factory.Model(seed=5, flags=("zero gradients",)))
    assert {refused(reference) for reference in references} == {"it has versions 1 and aliases challenger"}


def test_a_download_is_the_file(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte for byte, under the given name or in the given folder, with nothing left beside it; or refused.

    MLflow's own download, as `mlflow artifacts download --artifact-uri models:/generalist@champion`, gives the same.
    """
    registry.register(GOOD)
    content = registry.results(GOOD).onnx.read_bytes()
    for reference in ("champion", "1"):
        place = tmp_path / reference
        file = download(registry.workspace, place / "my.onnx", name=registry.name, reference=reference)
        folder = download(registry.workspace, place, name=registry.name, reference=reference)
        assert file.read_bytes() == folder.read_bytes() == content
        assert {path.name for path in place.iterdir()} == {"my.onnx", "model.onnx"}
    (tmp_path / "file").touch()
    with pytest.raises(
        BadInput, match=r"file/model\.onnx can't be written: .* is a file; remove it or name another file"
    ):
        download(registry.workspace, tmp_path / "file" / "model.onnx", name=registry.name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.workspace.tracking_uri)
    fetched = mlflow.artifacts.download_artifacts(f"models:/{registry.name}@champion", dst_path=str(tmp_path / "away"))
    assert Path(fetched, "model.onnx").read_bytes() == content


def test_a_changed_file_is_not_handed_out(registry: Registry, tmp_path: Path) -> None:
    """Nor one that is gone; the target is left alone."""
    registry.register(replace(GOOD, seed=12))
    held = Path(registry.client.get_model_version_download_uri(registry.name, "1"), "model.onnx")
    held.write_bytes(held.read_bytes()[:-1] + b"?")
    with pytest.raises(BadInput, match="version 1 was changed after it was registered: restore"):
        download(registry.workspace, tmp_path / "model.onnx", name=registry.name)
    held.unlink()
    with pytest.raises(BadInput, match=r"version 1 is gone from .*: restore it there"):
        download(registry.workspace, tmp_path / "model.onnx", name=registry.name)
    assert not (tmp_path / "model.onnx").exists()


def test_a_file_leads_to_its_runs_and_versions(registry: Registry) -> None:
    """By its SHA-256; an unknown file leads nowhere."""
    registration = registry.register(replace(GOOD, seed=13))
    traced = find(registry.workspace, registration.sha256)
    assert traced.runs == (registration.run_id,)
    assert [(version.version, version.aliases) for version in traced.versions] == [(1, ("champion",))]
    assert find(registry.workspace, "0" * 64) == traced.model_copy(update={"runs": (), "versions": ()})
