"""Where results may go: into a folder of their own."""

import os
from pathlib import Path

import pytest

from generalist.atomic_files import partial_name
from generalist.config import preset_path
from generalist.errors import BadInput
from pipelines.deployment_limits import check_within
from pipelines.results import Results, check_target
from pipelines.results_manifest import writing
from pipelines.workspace import Workspace
from tests.command_line import refused


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A project that is the current folder."""
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "params.yaml").write_bytes(preset_path("digits").read_bytes())
    (tmp_path / "data" / "raw").mkdir(parents=True)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x", encoding="utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return Workspace.find()


@pytest.mark.parametrize(
    ("out", "why"),
    [
        ("/", "the project itself lies there"),
        (".", "the project itself lies there"),
        ("..", "the project itself lies there"),
        ("data", "is for other things"),
        ("data/raw", "is for other things"),
        ("data/mine/deep", "is for other things"),
        ("link/mine", "is for other things"),
        ("mlruns/x", "is for other things"),
        (".git", "is for other things"),
        ("thesis", "it holds other things, such as chapter.tex"),
    ],
)
def test_a_folder_with_something_else_is_refused(place: Workspace, out: str, why: str) -> None:
    """In one sentence, before any work: nothing is made."""
    before = sorted(place.root.rglob("*"))
    sentence = refused("train", "--out", out)
    assert sentence.startswith(f"results can't be written to {out}: ") and why in sentence
    assert sorted(place.root.rglob("*")) == before


def test_a_folder_of_results_is_taken_again(place: Workspace) -> None:
    """New, empty, begun, or finished with a note of somebody's in it; DVC's list of what git ignores lies there, too."""
    results = Results(place.outputs)
    check_target(results, place)
    results.folder.mkdir()
    check_target(results, place)
    with partial_name(results.onnx) as killed:
        pass
    for name in (".gitignore", "model.onnx", killed.name, "remix.png"):
        (results.folder / name).touch()
    check_target(results, place)
    (results.folder / "note.txt").touch()
    with pytest.raises(BadInput, match=r"such as note\.txt"):
        check_target(results, place)
    results.evaluation.touch()
    check_target(results, place)


@pytest.mark.parametrize("given", ["/etc/passwd", "../other", "link-out/x", "data/../../x"])
def test_a_deployments_parameters_stay_within_the_project(
    place: Workspace, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless a setting allows more."""
    (place.root / "link-out").symlink_to("/tmp")
    with pytest.raises(BadInput, match=r"is outside of the project, .* GENERALIST_PATHS=anywhere"):
        check_within(Path(given), place)
    monkeypatch.setenv("GENERALIST_PATHS", "anywhere")
    assert check_within(Path(given), place) == Path(os.path.realpath(given))


@pytest.mark.parametrize("given", ["params.yaml", "runs/mine", "./a/../b"])
def test_paths_within_the_project_are_taken(place: Workspace, given: str) -> None:
    """Relative to the project, as their absolute forms."""
    assert check_within(Path(given), place) == (place.root / given).resolve()
    assert check_within(place.root / given, place) == (place.root / given).resolve()


def test_results_in_the_making_are_their_writers_alone(tmp_path: Path) -> None:
    """Two writers of one configuration have two folders; each goes with its writer, and a killed one's with the next."""
    project = Workspace(tmp_path, tmp_path)
    killed = project.staging / project.lock_name(tmp_path / "killed")
    killed.mkdir(parents=True)
    first, second = Results(tmp_path / "first"), Results(tmp_path / "second")
    with writing(first, project) as staged:
        staged.params.write_text("first", encoding="utf-8")
        assert not killed.exists()
        with writing(second, project) as other:
            assert other.folder != staged.folder
            assert list(other.folder.iterdir()) == []
        assert not other.folder.exists()
        assert staged.params.read_text(encoding="utf-8") == "first"
        with pytest.raises(BadInput, match="is writing first/"), writing(first, project):
            pass
        assert staged.params.read_text(encoding="utf-8") == "first"
    assert list(project.staging.iterdir()) == []
