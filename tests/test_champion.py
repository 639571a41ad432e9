"""What MLflow's artifacts say of the champion counts only where it is what was registered."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from generalist.store import write_tensors
from pipelines.results import Results
from pipelines.results_manifest import write_manifest
from pipelines.tracking import MANIFEST_SHA256
from tests import tracking_factory as factory
from tests.registry_factory import BETTER, GOOD, OTHER_PROTOCOL, Registry

pytestmark = pytest.mark.long

NEWER = factory.Model(seed=41, protocol=OTHER_PROTOCOL, validation=(19, 13))
WEAK = factory.Model(seed=42, natural=60, robust=20, validation=(8, 4))


def kept(registry: Registry, run_id: str) -> Results:
    """Return the files of a run, where anybody who can write MLflow's artifacts can change them."""
    return Results(Path(registry.client.get_run(run_id).info.artifact_uri))


def zeroed(files: Results) -> None:
    """Weights of nothing, well formed."""
    write_tensors(files.weights, {"weight": factory.torch.zeros(1)}, {})


def damaged(files: Results) -> None:
    """Not YAML any more."""
    files.params.write_bytes(b"\x00\xff{")


def weakened(files: Results) -> None:
    """Put the evaluation of a weaker model there."""
    _replaced(files, "evaluation.json", "verdicts.npz")


def weakened_with_a_manifest(files: Results) -> None:
    """Put all the files of a weaker model there, with their manifest."""
    _replaced(files, *(path.name for path in files.all()))


def _replaced(files: Results, *names: str) -> None:
    weak = WEAK.write(files.folder / "weak")
    for name in names:
        (weak.folder / name).replace(files.folder / name)


def test_a_replaced_file_lets_nobody_win(registry: Registry) -> None:
    """The reason names it; nothing of it is used, and later models are still registered."""
    run_id = registry.register(replace(GOOD, seed=50)).run_id
    files = kept(registry, run_id)
    whole = {path: path.read_bytes() for path in files.all() if path.is_file()}

    def never(older: Results) -> Results:
        raise AssertionError(f"{older} was evaluated")

    changes: list[tuple[Callable[[Results], None], str]] = [
        (zeroed, "global.safetensors"),
        (damaged, "params.yaml"),
        (weakened, "evaluation.json"),
        (weakened_with_a_manifest, "manifest.json"),
    ]
    for number, (change, name) in enumerate(changes):
        change(files)
        registration = registry.register(replace(NEWER, seed=60 + number), reevaluate=never)
        assert (registration.alias, registry.champion) == ("challenger", 1)
        (reason,) = registration.reasons
        assert f"{name} of its run {run_id} is damaged, or was changed after it was registered" in reason
        shutil.rmtree(files.folder / "weak", ignore_errors=True)
        for path, content in whole.items():
            path.write_bytes(content)


def test_replaced_verdicts_of_the_same_protocol_are_not_compared(registry: Registry) -> None:
    """Also where nothing has to be evaluated again."""
    run_id = registry.register(replace(GOOD, seed=51)).run_id
    kept(registry, run_id).verdicts.write_bytes(WEAK.write(registry.folder / "weak").verdicts.read_bytes())
    (reason,) = registry.register(BETTER).reasons
    assert f"verdicts.npz of its run {run_id} is damaged" in reason


def test_a_replaced_evaluation_by_a_later_protocol_is_made_anew(registry: Registry, tmp_path: Path) -> None:
    """Its digests are a tag of the version; without anybody to evaluate it, it lets nobody win."""
    run_id = registry.register(replace(GOOD, seed=52)).run_id
    asked: list[Results] = []

    def reevaluate(older: Results) -> Results:
        asked.append(older)
        return GOOD.reevaluated(tmp_path / f"again{len(asked)}", OTHER_PROTOCOL, validation=(20, 16))

    assert registry.register(NEWER, reevaluate=reevaluate).alias == "challenger"
    again = kept(registry, run_id).folder / "reevaluated" / OTHER_PROTOCOL.digest()
    weak = replace(WEAK, protocol=OTHER_PROTOCOL).write(tmp_path / "weak")
    for name in ("evaluation.json", "verdicts.npz"):
        (again / name).write_bytes((weak.folder / name).read_bytes())
    (reason,) = registry.register(replace(NEWER, seed=44)).reasons
    assert f"evaluation.json of its run {run_id} is damaged, or was changed" in reason
    (reason,) = registry.register(replace(NEWER, seed=45), reevaluate=reevaluate).reasons
    assert "is not above the champion's 0.8889" in reason
    assert len(asked) == 2
    (reason,) = registry.register(replace(NEWER, seed=46)).reasons
    assert "is not above the champion's 0.8889" in reason


@pytest.mark.parametrize("error", [RuntimeError("CUDA error:\nout of memory"), MemoryError()])
def test_an_evaluation_that_fails_is_a_reason(registry: Registry, error: Exception) -> None:
    """Neither a traceback nor a win."""
    registry.register(GOOD)

    def fails(older: Results) -> Results:
        raise error

    (reason,) = registry.register(NEWER, reevaluate=fails).reasons
    assert reason.startswith(
        f"it can't be compared with the champion, version 1 (evaluating it again fails with {type(error).__name__}"
    )
    assert "\n" not in reason
    assert registry.champion == 1


def test_a_champion_without_digests_is_not_compared(registry: Registry) -> None:
    """As an older version registered it."""
    registry.register(GOOD)
    registry.client.delete_model_version_tag(registry.name, "1", MANIFEST_SHA256)
    (reason,) = registry.register(BETTER).reasons
    assert "it was registered by an older version, which noted no digests of its evaluation" in reason
    assert "`generalist promote`" in reason


def test_a_replaced_model_is_not_taken_for_an_equal_one(registry: Registry, tmp_path: Path) -> None:
    """Its graph is another one's, put there after it was registered."""
    model = replace(GOOD, seed=53)
    registry.register(model)
    other = replace(model, drift=0.5).write(tmp_path / "other", settings=factory.config(registry=registry.section))
    Path(registry.client.get_model_version(registry.name, "1").source, "model.onnx").write_bytes(
        other.onnx.read_bytes()
    )
    found = registry.take(other)
    assert (found.version, found.new, found.equal) == (2, True, False)


def test_a_run_keeps_these_very_results(registry: Registry, tmp_path: Path) -> None:
    """Other results with the same model get a run of their own, so that a version's digests are of its run's files."""
    model = replace(GOOD, seed=54)
    results = model.write(tmp_path / "one", settings=factory.config(registry=registry.section))
    from pipelines.tracking import publish

    before = publish(registry.workspace, results)
    results.report.write_text("written at another time", encoding="utf-8")
    write_manifest(results)
    found = registry.take(results)
    assert found.run_id != before
    (reason,) = registry.register(replace(model, seed=55)).reasons
    assert "is not above the champion's" in reason
