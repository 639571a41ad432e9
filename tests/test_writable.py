"""Where no result can be written: told in one sentence before any work, at every command that writes."""

from pathlib import Path

import pytest

from generalist.atomic_files import check_file
from generalist.config import load
from generalist.config.names import check_name
from generalist.errors import BadInput
from generalist.training.__main__ import main
from pipelines import deployment_limits
from pipelines.results import Results, check_target
from pipelines.tuning import ablation, run_search, worker
from pipelines.workspace import Workspace
from tests.command_line import refused

FILES = {
    "attack": (("attack", "model.onnx", "--threat", "linf:0.1", "--out"), ".npz"),
    "attack's state": (("attack", "model.onnx", "--threat", "linf:0.1", "--state"), ""),
    "merge": (("merge", "shard.npz", "--out"), ".npz"),
    "download": (("download", "--output"), ".onnx"),
    "tune": (("tune", "--json"), ".json"),
    "ablate": (("ablate", "warm-up-and-interval", "--json"), ".json"),
}
FOLDERS = {"train": ("train", "--out"), "remix": ("remix", "outputs", "--out")}
NOWHERE = {
    "/dev/null": "no regular file",
    "dangling": "is a link to nowhere",
    "dangling/deeper/x": "is a link to nowhere",
    "file/below": "file is a file",
    "/proc/missing/x": "/proc may not be written to",
    "x" * 300: "File name too long",
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a file, a folder and a link to nowhere."""
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listed(place: Path) -> list[tuple[str, int]]:
    """Everything in a project, and when it was changed."""
    return sorted((str(path), path.lstat().st_mtime_ns) for path in place.rglob("*"))


@pytest.mark.parametrize(
    ("command", "target"), [*(("attack", target) for target in NOWHERE), *((own, "dangling") for own in FILES)]
)
def test_a_file_that_can_not_be_written_is_told_before_any_work(place: Path, command: str, target: str) -> None:
    """A device, a link to nowhere, below a file, where nobody may write; nothing was made or touched."""
    words, _ = FILES[command]
    before = listed(place)
    sentence = refused(*words, target)
    assert f"{target} can't be written" in sentence
    assert NOWHERE[target] in sentence
    assert listed(place) == before


@pytest.mark.parametrize("command", FILES)
def test_a_folder_or_somebody_elses_file_is_not_replaced(place: Path, command: str) -> None:
    """Such as params.yaml, or the file that was meant to be read."""
    words, suffix = FILES[command]
    if command == "download":  # into a folder it writes model.onnx
        (place / "folder.npz" / "model.onnx").mkdir()
    assert "a folder; name another file" in refused(*words, "folder.npz")
    if suffix:
        assert f"another file than of {suffix} lies there" in refused(*words, "file")
        assert (place / "file").read_text(encoding="utf-8") == "mine"
    new = place / "missing" / f"new{suffix}"
    check_file(new, suffix=suffix)
    assert not new.parent.exists()


@pytest.mark.parametrize(("command", "target"), [*(("train", target) for target in NOWHERE), ("remix", "dangling")])
def test_a_folder_that_can_not_be_written_is_told_before_any_work(place: Path, command: str, target: str) -> None:
    """The same for commands that write whole folders."""
    before = listed(place)
    sentence = refused(*FOLDERS[command], target)
    assert sentence.startswith(f"results can't be written to {target}")
    assert NOWHERE[target].replace("no regular file", "is a file") in sentence
    assert listed(place) == before


def test_the_librarys_own_door_refuses_them_too(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before it reads anything."""
    words = ["--preset", "digits", "--data", "data", "--store", "store", "--out", "dangling"]
    assert main(words) == 2
    assert "is a link to nowhere" in capsys.readouterr().err
    assert not (place / "data").exists()


def test_a_configuration_of_somebodys_is_not_replaced_by_results(place: Path) -> None:
    """A folder with nothing of ours but a params.yaml is somebody's own."""
    results = Results(place / "mine")
    results.folder.mkdir()
    results.params.write_text("seed: 1", encoding="utf-8")
    workspace = Workspace(place, place)
    with pytest.raises(BadInput, match=r"it holds other things, such as params\.yaml"):
        check_target(results, workspace)
    results.onnx.touch()
    check_target(results, workspace)


GOOD = ("digits-1a2b3c4d", "a", "_x", "v1.2", "9", "A" * 100)
BAD = (
    "",
    ".",
    "..",
    "../../x",
    "a/b",
    "/etc/x",
    "-rf",
    ".hidden",
    "a b",
    "é",
    "a\n",
    "x" * 101,
    "a\0",
    "name:1",
    "a@b",
)


@pytest.mark.parametrize("name", BAD)
def test_a_search_has_a_name_that_leads_nowhere(place: Path, name: str) -> None:
    """At the command line, by the library's door and as the registry's name; nothing is made."""
    with pytest.raises(BadInput, match="is no name: one has at most 100 letters"):
        check_name(name, "it")
    workspace = Workspace(place, place)
    before = listed(place)
    with pytest.raises(BadInput, match="is no name"):
        worker.join(workspace, name=name, address=None)
    with pytest.raises(BadInput, match="is no name"):
        run_search.run(
            workspace, load(preset="digits"), name=name, address=None, workers=1, tell=lambda _: pytest.fail("told")
        )
    with pytest.raises(BadInput, match=r"registry\.name"):
        load(preset="digits", overrides=[f"registry.name={name!r}"])
    assert listed(place) == before
    if name and "\0" not in name:
        for words in (("tune", "--preset", "digits", "--name"), ("rollback", "--name"), ("download", "--name")):
            assert "is no name" in refused(*(word for word in (*words[:-1], f"{words[-1]}={name}") if word))


@pytest.mark.parametrize("name", GOOD)
def test_usual_names_are_taken(name: str) -> None:
    """They are what they were."""
    assert check_name(name, "it") == name
    assert load(preset="digits", overrides=[f"registry.name='{name}'"]).registry.name == name


@pytest.mark.parametrize("name", ["../digits", "/etc/hostname", "ablations/warm-up-and-interval", "..", ""])
def test_presets_and_ablations_have_names_of_a_list(name: str) -> None:
    """A path without the suffix of a file of one's own is none of them."""
    with pytest.raises(BadInput, match="there is no preset"):
        load(preset=name)
    with pytest.raises(BadInput, match="there is no ablation"):
        ablation.path_of(name)


def of_deployment(place: Path, **given: object) -> object:
    """Return the configuration of a deployment's run."""
    parameters = {"params": None, "preset": None, "overrides": [], **given}
    return deployment_limits.configuration(Workspace(place, place), trusted=False, **parameters)  # type: ignore[arg-type]


def test_a_deployment_writes_to_its_own_folders_alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not over the project's files, nor over the results of DVC; links are followed."""
    workspace = Workspace(place, place)
    (place / "runs").mkdir()
    (place / "runs" / "out").symlink_to("/tmp")
    for given in ("outputs", ".", "data/x", "/tmp/x", "runs/../x", "runs/out/x", "../x", ".generalist/x", "tuning.x"):
        with pytest.raises(BadInput, match="is not in the folders that the deployment writes to: name a path within"):
            deployment_limits.check_below(Path(given), workspace)
    for given in ("runs/mine", "tuning/best", str(place / "runs" / "a" / "b")):
        assert deployment_limits.check_below(Path(given), workspace) == place / given
    monkeypatch.setenv("GENERALIST_PATHS", "anywhere")
    assert deployment_limits.check_below(Path("outputs"), workspace) == place / "outputs"


def test_a_deployment_reads_within_the_project_alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No parameter names another place: a file of a configuration, images, weights."""
    elsewhere = place.parent / f"{place.name}-elsewhere.yaml"
    own = load(preset="digits")
    for text in (elsewhere, place / "params.yaml"):
        text.write_text(_yaml("training.initial_weights=/of/the/project.safetensors"), encoding="utf-8")
    outside: list[dict[str, object]] = [
        {"params": str(elsewhere)},
        {"preset": str(elsewhere)},
        {"preset": "digits", "overrides": ["training.initial_weights=/etc/x.safetensors"]},
        {"overrides": ["training.initial_weights=../x.safetensors"]},
        {"overrides": ["data={name: folder, path: /etc}"]},
        {"overrides": ["data={name: folder, path: ~/x}"]},
    ]
    for given in outside:
        with pytest.raises(BadInput, match="is outside of the project"):
            of_deployment(place, **given)
    assert of_deployment(place) == of_deployment(place, params="params.yaml")
    assert of_deployment(place, overrides=["seed=3"]) != of_deployment(place)
    assert of_deployment(place, preset="digits") == own
    monkeypatch.setenv("GENERALIST_PATHS", "anywhere")
    for given in outside:
        of_deployment(place, **given)


def _yaml(*overrides: str) -> str:
    from generalist.config import to_yaml

    return to_yaml(load(preset="digits", overrides=overrides))
