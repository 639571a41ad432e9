"""The command line: quick help, one sentence for wrong input before any work, configurations shown and chosen."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from generalist.config import check, load, preset_names, preset_path, to_yaml
from tests.command_line import generalist, refused
from tests.services import environment

WRONG = [
    (("training.epohs=3",), "override 'training.epohs=3': training: unknown key 'epohs'; did you mean 'epochs'?"),
    (("mixing.warm_up=40",), "the warm-up must end before the last epoch"),
    (("experts.robust.objective.threat.eps=-0.1",), "eps is -0.1, but it should be greater than 0"),
    (("experts.robust.objective.threat.eps=-8/255",), 'threat.eps is "-8/255", but it should be greater than 0'),
    (("experts.robust.objective={name: adversarial}",), "experts.robust.objective: 'threat' is missing"),
    (("mixing.weights={natural: 0.5, robust: 0.6}",), "must sum to one; at progress 0.0 they sum to 1.1"),
    (("mixing.interval",), "override 'mixing.interval' is not of the form section.key=value"),
    (("data.name=digit",), "unknown name 'digit'; did you mean 'digits'?"),
]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the default configuration, which is the current folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    (tmp_path / "params.yaml").write_bytes(preset_path("digits").read_bytes())
    return tmp_path


def overrides(given: tuple[str, ...]) -> list[str]:
    """As options."""
    return [word for override in given for word in ("--set", override)]


def test_help_loads_nothing_heavy() -> None:
    """Torch, MLflow and Prefect each take seconds, and help needs none of them."""
    program = (
        "import sys\n"
        "from pipelines.cli import main\n"
        "sys.argv = ['generalist', '--help']\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n"
        "    heavy = {'torch', 'mlflow', 'prefect', 'onnx', 'pydantic', 'numpy'} & set(sys.modules)\n"
        "    sys.exit(end.code or ' '.join(sorted(heavy)) or 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for command in ("run", "train", "serve", "predict", "trace", "download", "config"):
        assert f"  {command} " in done.stdout


def test_help_has_a_whole_sentence_for_each_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    for words in (("--help",), ("config", "--help"), ("store", "--help")):
        commands = generalist(*words).stdout.partition("Commands:\n")[2].splitlines()
        assert commands and all(re.fullmatch(r"  [a-z]+ +[A-Z].*[^.]\.", line) for line in commands), words


@pytest.mark.parametrize(("given", "sentence"), WRONG, ids=[given[0] for given, _ in WRONG])
def test_wrong_configurations_are_refused_in_one_sentence(given: tuple[str, ...], sentence: str) -> None:
    """It says what is wrong and where; `config check` and `train` say the same."""
    told = refused("config", "check", *overrides(given))
    assert sentence in told
    assert refused("config", "show", *overrides(given)) == told
    assert refused("train", "--plan", *overrides(given)) == told


def test_a_wrong_configuration_starts_no_training(project: Path) -> None:
    """Nothing is written but the log of a server that was not needed."""
    before = {path.name for path in project.iterdir()}
    assert "did you mean 'epochs'" in refused("train", "--set", "training.epohs=3")
    assert {path.name for path in project.iterdir()} - before <= {".generalist"}
    assert {path.name for path in (project / ".generalist").iterdir()} == {"logs"}


def test_a_wrong_params_yaml_stops_every_door(project: Path) -> None:
    """`prepare` and `run` read it first, too, and start neither DVC nor anything else."""
    text = (project / "params.yaml").read_text(encoding="utf-8")
    (project / "params.yaml").write_text(text.replace("warm_up: 25", "warm_up: 99"), encoding="utf-8")
    for command in ("prepare", "run"):
        assert "mixing.warm_up is 99, but training.epochs is 40" in refused(command)
    assert not (project / "data").exists()


def test_a_missing_file_is_named() -> None:
    """With what to name instead."""
    assert refused("config", "check", "--params", "nope.yaml").startswith("nope.yaml can't be read: No such file")


def test_a_file_and_a_preset_at_once_are_refused() -> None:
    """Each is a whole configuration."""
    for command in (("config", "show"), ("config", "check"), ("train",)):
        sentence = refused(*command, "--params", "params.yaml", "--preset", "digits")
        assert sentence == "--params and --preset each name a whole configuration: give one of them"


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    """The nearest is named."""
    assert "did you mean 'digits'?" in refused("config", "show", "--preset", "digitz")
    assert "did you mean 'digits'?" in refused("config", "use", "digitz")


def test_an_output_path_below_a_file_is_refused_before_the_training(project: Path) -> None:
    """A file where a folder should be."""
    (project / "file").write_text("", encoding="utf-8")
    sentence = refused("train", "--out", "file/outputs")
    assert "file is a file; remove it or name another folder" in sentence
    assert not (project / ".generalist").exists()


@pytest.mark.long  # imports that wait for a busy machine
def test_missing_images_are_told_before_anything_is_made(project: Path) -> None:
    """No database, no run, no results."""
    assert "not found in" in refused("train", "--preset", "cifar10-resnet18-quick")
    assert not (project / "mlflow.db").exists() and not (project / "outputs").exists()


def test_a_port_in_use_is_refused() -> None:
    """Before any server starts, with the option that chooses another."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = str(listening.getsockname()[1])
        sentence = refused("serve", "--prefect-port", port)
    assert sentence.startswith(f"port {port} is in use") and "--prefect-port" in sentence


def test_the_shown_configuration_is_whole_and_reads_back_the_same() -> None:
    """With every default written out, and fractions as they were written."""
    shown = generalist(
        "config", "show", "--set", "evaluation.threats.0.eps=8/255", "--set", "mixing.interval={steps: 10}"
    )
    assert shown.exit_code == 0
    assert "eps: 8/255" in shown.stdout
    expected = load("params.yaml", overrides=["evaluation.threats.0.eps=8/255", "mixing.interval={steps: 10}"])
    assert check(yaml.safe_load(shown.stdout)) == expected
    assert shown.stdout == to_yaml(expected)


def test_a_right_configuration_is_told_in_one_line() -> None:
    """Of the file, or of a preset."""
    assert generalist("config", "check").stdout == "OK: digits, small_cnn, 40 epochs of natural, robust\n"
    assert generalist("config", "check", "--preset", "cifar10-resnet18").stdout.startswith("OK: cifar10, resnet18, ")


def test_a_device_that_is_not_there_is_refused_at_every_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any work; `auto` is refused nowhere, and what it means is told."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for command in (("config", "check"), ("plan",), ("train",)):
        assert "torch sees no CUDA device" in refused(*command, "--set", "training.device=cuda")
    told = generalist("config", "check", "--set", "training.device=auto").stdout
    assert "on the CPU, by training.device: auto, as torch sees no CUDA device here" in told


def test_all_presets_are_listed_with_what_they_are() -> None:
    """One line each."""
    lines = generalist("config", "presets").stdout.splitlines()
    assert [line.partition(": ")[0] for line in lines] == preset_names()
    assert all(line.partition(": ")[2] not in ("", "no description") for line in lines)


def test_a_preset_without_a_comment_has_no_description(tmp_path: Path) -> None:
    """Nothing is made up."""
    from pipelines.cli.config_commands import _first_comment

    (tmp_path / "bare.yaml").write_text("seed: 0\n", encoding="utf-8")
    assert _first_comment(tmp_path / "bare.yaml") == "no description"


def test_a_preset_is_written_whole(project: Path) -> None:
    """Where there was another preset, or nothing."""
    for name in ("cifar10-oat", "digits-mat", "digits-trades"):
        result = generalist("config", "use", name)
        assert result.exit_code == 0 and f"is the preset {name} now" in result.stdout
        assert load(project / "params.yaml") == load(preset=name)
    (project / "params.yaml").unlink()
    assert generalist("config", "use", "digits").exit_code == 0
    assert sorted(path.name for path in project.iterdir()) == ["dvc.yaml", "params.yaml"]


def test_an_edited_params_yaml_is_not_lost(project: Path) -> None:
    """Unless that is asked for."""
    edited = (project / "params.yaml").read_text(encoding="utf-8").replace("seed: 0", "seed: 1", 1)
    (project / "params.yaml").write_text(edited, encoding="utf-8")
    assert "was edited" in refused("config", "use", "digits")
    assert (project / "params.yaml").read_text(encoding="utf-8") == edited
    assert generalist("config", "use", "digits", "--force").exit_code == 0
    assert (project / "params.yaml").read_bytes() == preset_path("digits").read_bytes()


def test_a_params_yaml_that_can_not_be_written_is_told(project: Path) -> None:
    """A folder in its place; nothing half-written stays."""
    (project / "params.yaml").unlink()
    (project / "params.yaml").mkdir()
    assert "params.yaml can't be written" in refused("config", "use", "digits")
    assert list((project / "params.yaml").iterdir()) == []


def test_wrong_usage_is_told_with_the_way_to_help() -> None:
    """The shell's own conventions."""
    result = generalist("train", "--nope")
    assert result.exit_code == 2
    assert "No such option: --nope" in result.stderr and "--help" in result.stderr


def test_the_version_is_said() -> None:
    """That of the installed package."""
    from importlib.metadata import version

    assert generalist("--version").stdout == f"generalist {version('generalist')}\n"


def test_a_project_begins_in_an_empty_folder_alone(project: Path) -> None:
    """What is there stays as it was; stages are right, and know no folders of this repository."""
    assert generalist("init", "new").exit_code == 0
    stages = yaml.safe_load((project / "new" / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert list(stages) == ["code", "prepare", "train"]
    assert all("code.txt" in stages[name]["deps"] for name in ("prepare", "train"))
    assert not {"generalist", "generalist/data", "pipelines"} & {*stages["prepare"]["deps"], *stages["train"]["deps"]}
    assert load(project / "new" / "params.yaml") == load(preset="digits")
    before = sorted(project.rglob("*"))
    assert "is there and not empty" in refused("init", "new")
    assert "is there and not empty" in refused("init", ".")
    assert "is there and not empty" in refused("init", "params.yaml")
    assert "can't be written" in refused("init", "params.yaml/below")
    assert sorted(project.rglob("*")) == before
