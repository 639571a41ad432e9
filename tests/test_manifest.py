"""Results are whole: a manifest tells of all of them, and what a killed training left is seen and mended."""

import os
import shutil
from pathlib import Path

import pytest

from generalist.errors import BadInput
from pipelines.results import Results
from pipelines.results_manifest import check_whole, move_into_place
from tests import tracking_factory as factory
from tests.command_line import refused
from tests.processes import forking
from tests.registry_factory import GOOD, OTHER_PROTOCOL, Registry

OTHER = factory.Model(seed=31, natural=80, robust=50, validation=(20, 20), protocol=OTHER_PROTOCOL)
RENAMES = len(Results(Path()).all())


def killed_at(rename: int, staged: Results, target: Results) -> None:
    """Put results down in a process that ends at one of the renames, as by `kill -9`."""
    pid = os.fork()
    if pid == 0:
        original, done = Path.replace, 0

        def counted(path: Path, to: Path) -> Path:
            nonlocal done
            if Path(to).parent == target.folder:
                done += 1
                if done == rename:
                    os._exit(9)
            return original(path, to)

        Path.replace = counted  # type: ignore[method-assign]
        try:
            move_into_place(staged, target)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


@forking
@pytest.mark.parametrize("rename", range(1, RENAMES + 1))
def test_a_kill_between_two_renames_is_seen_and_mended(tmp_path: Path, rename: int) -> None:
    """Whatever lies there is all of the one, or refused; the same command again completes it."""
    target, staged = GOOD.write(tmp_path / "outputs"), OTHER.write(tmp_path / "staged")
    before = check_whole(target)
    after = check_whole(Results(shutil.copytree(staged.folder, tmp_path / "whole")))
    killed_at(rename, staged, target)
    if rename == 1:
        assert check_whole(target) == before
    else:
        with pytest.raises(BadInput, match=r"a training was killed while it put results down: .*`dvc repro`"):
            check_whole(target)
    shutil.rmtree(staged.folder)
    move_into_place(OTHER.write(staged.folder), target)
    assert check_whole(target) == after


@forking
@pytest.mark.parametrize("rename", [2, RENAMES // 2, RENAMES])
def test_a_kill_in_an_empty_folder_is_seen(tmp_path: Path, rename: int) -> None:
    """There is no manifest before all else is there."""
    target, staged = Results(tmp_path / "outputs"), GOOD.write(tmp_path / "staged")
    killed_at(rename, staged, target)
    with pytest.raises(BadInput, match=r"there is no .*manifest\.json, so the results are not whole"):
        check_whole(target)


@forking
def test_what_a_kill_left_is_not_registered(registry: Registry) -> None:
    """One training's model would else be champion on another one's evaluation."""
    registry.register(GOOD)
    target, staged = registry.results(factory.Model(seed=30)), registry.results(OTHER)
    killed_at(4, staged, target)  # weights, model and evaluation are of the other one, verdicts are not
    with pytest.raises(BadInput, match=r"global\.safetensors is not the file that manifest\.json tells of"):
        registry.take(target)
    assert registry.champion == 1
    assert len(registry.client.search_model_versions(f"name='{registry.name}'")) == 1


@pytest.mark.parametrize("name", [path.name for path in Results(Path()).all()])
def test_every_file_is_told_of(results: Results, name: str) -> None:
    """One that was changed or removed is refused, and the sentence names it and how to mend it."""
    path = results.folder / name
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(BadInput, match=rf"{name} .*`dvc repro`, or `generalist train --out {results.folder}`"):
        check_whole(results)
    path.unlink()
    with pytest.raises(BadInput, match=rf"{name}.*`dvc repro`"):
        check_whole(results)


@pytest.mark.parametrize("told", ["{}", '{"files": {}}', '{"files": {"model.onnx": 1}}', "[", "7"])
def test_a_manifest_that_tells_of_other_files_is_refused(results: Results, told: str) -> None:
    """Such as of none."""
    results.manifest.write_text(told, encoding="utf-8")
    with pytest.raises(BadInput, match=r"manifest\.json (can't be read or is damaged|doesn't tell of the files)"):
        check_whole(results)


def test_results_without_a_manifest_are_refused_at_every_door(
    tmp_path: Path, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As older versions left them."""
    factory.workspace(tmp_path, pytestconfig)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    GOOD.write(tmp_path / "outputs").manifest.unlink()
    monkeypatch.chdir(tmp_path)
    for command in (("register",), ("remix", "outputs")):
        sentence = refused(*command)
        assert "manifest.json, so the results are not whole" in sentence
        assert "`dvc repro`" in sentence and "`generalist train --out" in sentence
