"""`generalist attack` and `generalist merge`: model files of ours and foreign ones, shards, and what is refused."""

from pathlib import Path

import numpy as np
import onnx
import onnx_models
import pytest
import torch

from generalist.attacks import autoattack
from generalist.attacks.verdict_files import merge_files
from generalist.export import read_classifier
from generalist.export.weights import write_weights
from generalist.store import write_tensors
from generalist.tensors import to_unit
from generalist.threats import Threat
from tests.command_line import generalist, refused
from tests.model_factory import GREY, made, options

pytestmark = pytest.mark.long

COUNT = 24
FEW = ("--threat", "linf:0.05", "--queries", "20", "--version", "quick")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of ours, a foreign ONNX file, and data for both."""
    path = tmp_path_factory.mktemp("attack")
    model = options("small_cnn", width=3)
    weights = made("small_cnn").state_dict()
    write_weights(path / "global.safetensors", weights, model=model, shape=GREY, data="d")
    write_tensors(path / "other.safetensors", weights, {"data": "d"})
    onnx.save(onnx_models.linear(), path / "foreign.onnx")
    random = np.random.default_rng(0)
    grey = random.integers(0, 256, (COUNT, 1, 8, 8), dtype=np.uint8)
    classifier = read_classifier(path / "global.safetensors", on=torch.device("cpu"))
    labels = classifier(to_unit(torch.from_numpy(grey))).argmax(1).numpy()
    np.savez(path / "grey.npz", images=grey, labels=labels)
    shape = (COUNT, onnx_models.CHANNELS, onnx_models.HEIGHT, onnx_models.WIDTH)
    colour = random.random(shape, dtype=np.float32)
    logits = colour.reshape(COUNT, -1) @ onnx_models.WEIGHT
    np.savez(path / "colour.npz", images=colour, labels=logits.argmax(1))
    return path


@pytest.fixture(autouse=True)
def _inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def test_weights_of_ours_are_attacked_as_the_library_does(folder: Path) -> None:
    """The same verdicts, and the counts that the command prints."""
    result = generalist("attack", "global.safetensors", "--data", "grey.npz", *FEW, "--out", "ours.npz")
    assert result.exit_code == 0, result.output
    with np.load("grey.npz") as arrays:
        images, labels = to_unit(torch.from_numpy(arrays["images"])), torch.from_numpy(arrays["labels"])
    network = read_classifier(folder / "global.safetensors", on=torch.device("cpu"))
    expected = autoattack(network, images, labels, Threat("linf", 0.05), version="quick", square_queries=20)
    found, facts = merge_files([Path("ours.npz")])
    assert found.robust.tolist() == expected.robust.tolist()
    assert found.fooled_by == expected.fooled_by
    assert 0 < int(expected.robust.sum()) < COUNT
    assert f"{100 * expected.robust.float().mean():.1f} %" in result.stdout.splitlines()[1]
    assert "linf:0.05, quick" in result.stdout
    assert (facts["threat"], facts["attack"]) == ("linf:0.05", "quick")


def test_shards_merged_are_the_whole() -> None:
    """Printed and written, whatever the order they are named in."""
    command = ("attack", "global.safetensors", "--data", "grey.npz", *FEW, "--adversarial")
    whole = generalist(*command, "--out", "whole.npz")
    for part in (":10", "10:17", "17:"):
        assert generalist(*command, "--images", part, "--out", f"{part.replace(':', '_')}.npz").exit_code == 0
    merged = generalist("merge", "17_.npz", "_10.npz", "10_17.npz", "--out", "merged.npz")
    assert merged.stdout == whole.stdout
    with np.load("whole.npz") as a, np.load("merged.npz") as b:
        assert set(a.files) == set(b.files)
        assert all((a[name] == b[name]).all() for name in a.files)


def test_a_gap_between_shards_is_refused() -> None:
    """With the images that are missing."""
    command = ("attack", "global.safetensors", "--data", "grey.npz", *FEW)
    generalist(*command, "--images", ":5", "--out", "a.npz")
    generalist(*command, "--images", "6:", "--out", "b.npz")
    assert "5" in refused("merge", "a.npz", "b.npz")


def test_shards_of_other_attacks_are_refused() -> None:
    """Verdicts under two threats are no verdicts of one evaluation."""
    command = ("attack", "global.safetensors", "--data", "grey.npz", *FEW)
    generalist(*command, "--images", ":5", "--out", "a.npz")
    generalist(*command, "--threat", "linf:0.1", "--images", "5:", "--out", "b.npz")
    assert "threat (linf:0.1 and linf:0.05)" in refused("merge", "a.npz", "b.npz")


def test_a_foreign_onnx_file_is_a_black_box() -> None:
    """Attacked by Square alone, and labelled so."""
    result = generalist("attack", "foreign.onnx", "--data", "colour.npz", "--threat", "linf:0.2", "--queries", "200")
    assert result.exit_code == 0, result.output
    assert "square, black box" in result.stdout
    assert "broken by square: " in result.stdout
    assert "100.0 %" in result.stdout.splitlines()[0]


def test_a_state_is_gone_on_from() -> None:
    """A second run of the same command has nothing left to do, and says the same."""
    command = ("attack", "global.safetensors", "--data", "grey.npz", *FEW, "--state", "state.safetensors")
    first, again = generalist(*command), generalist(*command)
    assert again.stdout == first.stdout
    assert again.exit_code == 0
    sentence = refused(*command, "--seed", "1")
    assert "state.safetensors" in sentence


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("missing.safetensors", "--data", "grey.npz", "--threat", "linf:0.1"), "missing.safetensors"),
        (("other.safetensors", "--data", "grey.npz", "--threat", "linf:0.1"), "which network"),
        (("missing.onnx", "--data", "grey.npz", "--threat", "linf:0.1"), "missing.onnx"),
        (("grey.npz", "--data", "grey.npz", "--threat", "linf:0.1"), "grey.npz"),
        (("global.safetensors", "--data", "none.npz", "--threat", "linf:0.1"), "none.npz"),
        (("global.safetensors", "--data", "foreign.onnx", "--threat", "linf:0.1"), "no .npz with arrays"),
        (("global.safetensors", "--data", "colour.npz", "--threat", "linf:0.1"), "takes images [1, 8, 8]"),
        (("foreign.onnx", "--data", "grey.npz", "--threat", "linf:0.1"), "takes images [3, 4, 5]"),
        (("global.safetensors", "--data", "grey.npz", "--threat", "linf"), "linf"),
        (("global.safetensors", "--data", "grey.npz", "--threat", "l3:0.1"), "l3"),
        (("global.safetensors", "--data", "grey.npz", "--threat", "linf:-1"), "-1"),
        (("global.safetensors", "--data", "grey.npz", "--threat", "linf:0.1", "--version", "standart"), "standard"),
        (("global.safetensors", "--data", "grey.npz", "--threat", "linf:0.1", "--attack", "agpd-ce"), "apgd-ce"),
        (("global.safetensors", "--data", "grey.npz", "--threat", "linf:0.1", "--images", "5:3"), "5:3"),
        (
            ("foreign.onnx", "--data", "colour.npz", "--threat", "linf:0.1", "--attack", "apgd-ce"),
            "no gradients for apgd-ce",
        ),
    ],
)
def test_wrong_input_is_one_sentence(words: tuple[str, ...], told: str) -> None:
    """What, where and how to mend it; nothing is run."""
    assert told in refused("attack", *words)
