"""Commands around the exported model: predictions, its origin, and the registry."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.tracking import sha256_of
from tests import onnx_models
from tests import tracking_factory as factory
from tests.command_line import generalist, refused

MODEL = factory.Model(seed=1)
BETTER = factory.Model(seed=2, validation=(19, 13))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """A project with a finished training in outputs, one in better, and MLflow's database."""
    folder = tmp_path_factory.mktemp("project")
    factory.prepare(factory.workspace(folder, pytestconfig).prepared)
    (folder / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    MODEL.write(folder / "outputs")
    BETTER.write(folder / "better")
    return folder


@pytest.fixture(autouse=True)
def _inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    for name in ("DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of three images."""
    random = np.random.default_rng(0)
    for name in ("a.png", "b.png", "c.png"):
        pixels = random.integers(0, 256, (onnx_models.HEIGHT, onnx_models.WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    return tmp_path


def test_predictions_name_the_most_probable_classes(images: Path) -> None:
    """One line an image, the most probable class first; a folder means its images."""
    lines = generalist("predict", str(images), "--top", "2").stdout.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [str(images / name) for name in ("a.png", "b.png", "c.png")]
    for line in lines:
        first, second = (float(share) for share in re.findall(r"[a-d] ([\d.]+) %", line))
        assert first >= second


def test_predictions_as_json_hold_all_probabilities(images: Path) -> None:
    """They sum to one, and the class is that of the largest."""
    (line,) = generalist("predict", str(images / "a.png"), "--json").stdout.splitlines()
    told = json.loads(line)
    assert set(told["probabilities"]) == {"a", "b", "c", "d"}
    assert sum(told["probabilities"].values()) == pytest.approx(1, abs=1e-6)
    assert told["class"] == max(told["probabilities"], key=told["probabilities"].get)
    assert told["provider"] == "CPUExecutionProvider"


def test_broken_images_are_named_and_the_others_predicted(images: Path) -> None:
    """On standard error, with exit code 1 at the end."""
    (images / "aa.png").write_bytes(b"no image")
    (images / "bb.png").touch()
    for words in ([str(images)], sorted(map(str, images.iterdir()))):
        result = generalist("predict", *words)
        assert result.exit_code == 1
        told = [line.partition(": ")[0] for line in result.stdout.splitlines()]
        assert told == [str(images / name) for name in ("a.png", "b.png", "c.png")]
        assert result.stderr.splitlines() == [
            f"{images / 'aa.png'} is no image that Pillow can read; mend or remove it",
            f"{images / 'bb.png'} is empty; mend or remove it",
        ]


def test_a_pipe_in_place_of_an_image_is_not_waited_for(images: Path) -> None:
    """Named itself it is refused, in a folder it is left out."""
    os.mkfifo(images / "pipe.png")
    assert generalist("predict", str(images)).exit_code == 0
    result = generalist("predict", str(images / "pipe.png"), str(images / "a.png"))
    assert (result.exit_code, len(result.stdout.splitlines())) == (1, 1)
    assert "pipe.png is a pipe, socket or device" in result.stderr


def test_names_of_any_bytes_are_shown(images: Path) -> None:
    """A name that is no UTF-8 is told by escapes, one with a line break stays one line."""
    (images / "a.png").rename(images / os.fsdecode(b"gar\xe7on.png"))
    (images / "b.png").rename(images / "b\n.png")
    result = generalist("predict", str(images))
    assert result.exit_code == 1
    assert [line.partition(": ")[0] for line in result.stdout.splitlines()] == [
        f"{images}/b\\n.png",
        f"{images}/c.png",
    ]
    assert result.stderr.startswith(f"{images}/gar\\xe7on.png is named in another encoding")


def test_what_is_not_there_is_wrong_input(images: Path) -> None:
    """A missing file, a folder without images: nothing is predicted."""
    assert "there is no" in refused("predict", str(images / "a.png"), str(images / "missing.png"))
    (images / "empty").mkdir()
    assert "holds no images" in refused("predict", str(images / "empty"))


def test_without_a_model_there_is_no_prediction(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence says how to get one."""
    monkeypatch.chdir(images)
    assert "make it with `dvc repro`, or name another model with --model" in refused("predict", "a.png")
    assert "nope.onnx can't be read" in refused("predict", "a.png", "--model", "nope.onnx")


def test_a_changed_file_fails_trace(project: Path, tmp_path: Path) -> None:
    """One byte is enough."""
    content = bytearray((project / "outputs" / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "changed.onnx").write_bytes(content)
    assert refused("trace", str(tmp_path / "changed.onnx")).startswith(f"{tmp_path}/changed.onnx ")


def test_trace_asks_no_database_that_is_not_there(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lineage is in the file; asking makes no database. Nobody vouches for the file, which is said first."""
    monkeypatch.chdir(tmp_path)
    result = generalist("trace", str(project / "outputs" / "model.onnx"))
    assert result.exit_code == 1
    assert result.stdout.startswith(
        "nothing here knows this file, and its seals don't say who made it (no MLflow database at"
    )
    assert "global (small_cnn)" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_registry_from_registration_to_rollback(project: Path, tmp_path: Path, tried_here: None) -> None:
    """Register, register again, trace, download, a better one, roll back, promote: each says what is so now."""
    assert "nothing is registered yet" in refused("download")
    unknown = generalist("trace", "outputs/model.onnx")
    assert unknown.exit_code == 1
    assert unknown.stdout.startswith(
        "nothing here knows this file, and its seals don't say who made it (MLflow at sqlite"
    )
    assert not unknown.stderr

    assert generalist("register").stdout == "generalist version 1, champion\n"
    assert generalist("register").stdout == "generalist version 1, champion, registered before\n"

    traced = generalist("trace", "outputs/model.onnx")
    assert traced.exit_code == 0
    for told in (
        sha256_of(project / "outputs" / "model.onnx"),
        "global (small_cnn)",
        f"90.0 % [82.6, 94.5], n = {factory.N}",
        factory.DATA.digest,
        "c0ffee",
        "registered: generalist version 1, champion",
    ):
        assert told in traced.stdout
    assert re.search(r"MLflow run: [0-9a-f]{32}\n", traced.stdout)

    target = tmp_path / "champion.onnx"
    assert generalist("download", "--output", str(target)).stdout.startswith(f"{target}\n")
    assert target.read_bytes() == (project / "outputs" / "model.onnx").read_bytes()

    assert "first champion: there is none to go back to" in refused("rollback")
    assert generalist("register", "--outputs", "better").stdout == "generalist version 2, champion\n"
    assert generalist("rollback").stdout == "generalist version 1 is champion now instead of version 2\n"
    assert generalist("promote", "2", "--reason", "a test").stdout.startswith("generalist version 2 is champion now")
    assert "champion already" in refused("promote", "2")
    assert "has no version '7': it has versions 1, 2" in refused("promote", "7")
    assert "has no version 'nope'" in refused("download", "--alias", "nope")
    assert "other has no version 'champion': nothing is registered yet" in refused("download", "--name", "other")


def test_results_that_are_not_there_are_not_registered(tmp_path: Path) -> None:
    """The sentence says how to make them."""
    assert f"there are no results in {tmp_path}: make them again with `dvc repro`" in refused(
        "register", "--outputs", str(tmp_path)
    )
