"""`generalist attack` and `generalist merge`: model files of ours and foreign ones, shards, and what is refused."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file

from generalist.attacks import autoattack
from generalist.attacks.result_files import merge_files, write_verdicts
from generalist.errors import BadInput
from generalist.evaluation import AtPoint
from generalist.export import read_classifier
from generalist.export.weights import write_weights
from generalist.records import Point
from generalist.store import tensors_digest, write_tensors
from generalist.tensors import Weights, to_unit
from generalist.threats import Threat
from tests import onnx_models
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
    weights = made("small_cnn", width=3).state_dict()
    write_weights(path / "global.safetensors", weights, model=model, shape=GREY, data="d")
    write_tensors(path / "other.safetensors", weights, {"data": "d"})
    conditional = {"width": 3, "condition": {"size": 8}}
    moved = made("small_cnn", **conditional).state_dict()
    write_weights(
        path / "conditional.safetensors", moved, model=options("small_cnn", **conditional), shape=GREY, data="d"
    )
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
    onnx.save(onnx_models.linear(shape=("n", *shape[2:], shape[1])), path / "last.onnx")
    _damaged(path, weights)
    return path


def _digest(tensors: Weights, facts: object) -> str:
    """As `store.files` computes it."""
    told = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(f"{tensors_digest(tensors)} {told}".encode()).hexdigest()


def _damaged(path: Path, weights: Weights) -> None:
    """Write what nothing can attack, or attack with."""
    save_file(weights, path / "foreign.safetensors")
    torch.save(weights, path / "foreign.pth")
    torch.save(weights, path / "old.pth", _use_new_zipfile_serialization=False)
    os.mkfifo(path / "fifo")
    os.mkfifo(path / "fifo.onnx")
    labels = np.zeros(2, dtype=np.int64)
    for name, value in (("nan", np.nan), ("bright", 255)):
        np.savez(path / f"{name}.npz", images=np.full((2, 1, 8, 8), value, dtype=np.float32), labels=labels)
    np.savez(path / "negative.npz", images=np.zeros((2, 1, 8, 8), dtype=np.uint8), labels=labels - 1)
    np.savez(path / "empty.npz", images=np.zeros((0, 1, 8, 8), dtype=np.uint8), labels=labels[:0])
    np.savez(path / "pickled.npz", images=np.array([None, None]), labels=labels)


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


SMALL = {"name": "small_cnn", "width": 3}
SHAPE = {"channels": 1, "height": 8, "width": 8, "classes": 10, "mean": [0.3], "std": [0.4]}


@pytest.mark.parametrize(
    "facts",
    [
        None,
        [],
        {"model": None, "shape": SHAPE},
        {"model": SMALL, "shape": None},
        {"model": SMALL, "shape": [1, 8, 8]},
        {"model": {**SMALL, "name": "another"}, "shape": SHAPE},
        {"model": {**SMALL, "name": ["small_cnn"]}, "shape": SHAPE},
        {"model": {**SMALL, "width": 4}, "shape": SHAPE},
        {"model": {**SMALL, "width": 10**9}, "shape": SHAPE},
        {"model": {**SMALL, "width": 10**30}, "shape": SHAPE},
        {"model": SMALL, "shape": {**SHAPE, "height": 10**9}},
        {"model": SMALL, "shape": {**SHAPE, "classes": 11}},
        {"model": SMALL, "shape": {**SHAPE, "mean": "a"}},
        {"model": SMALL, "shape": {**SHAPE, "std": [float("nan")]}},
        {"model": SMALL, "shape": {**SHAPE, "std": [0]}},
    ],
    ids=range(15),
)
def test_weights_that_name_another_network_are_refused(facts: object, folder: Path, tmp_path: Path) -> None:
    """Though their checksum is right; and no memory is taken for a huge one."""
    weights = read_classifier(folder / "global.safetensors", on=torch.device("cpu")).state_dict()
    write_tensors(tmp_path / "a.safetensors", weights, {"model": SMALL, "shape": SHAPE})
    assert read_classifier(tmp_path / "a.safetensors", on=torch.device("cpu")).shape.height == 8
    note = json.dumps({"facts": facts, "digest": _digest(weights, facts)}, sort_keys=True)
    save_file(weights, tmp_path / "a.safetensors", metadata={"generalist": note})
    with pytest.raises(BadInput, match=r"does not tell which (network|images)|facts are no object"):
        read_classifier(tmp_path / "a.safetensors", on=torch.device("cpu"))


ONNX = ("--data", "colour.npz", "--threat", "linf:0.1", "--queries", "5")


def test_a_file_is_onnx_whatever_the_case_of_its_suffix(folder: Path) -> None:
    """And takes a fixed number of images at a time."""
    onnx.save(onnx_models.linear(shape=(10, 3, 4, 5)), folder / "FIXED.ONNX")
    fixed, free = generalist("attack", "FIXED.ONNX", *ONNX), generalist("attack", "foreign.onnx", *ONNX)
    assert fixed.exit_code == 0, fixed.output
    assert fixed.stdout == free.stdout


@pytest.mark.parametrize("here", ["a", "b"])
def test_weights_beside_an_onnx_file_are_its_own(here: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two networks of one architecture, attacked from the folder of either; and the digest tells them apart."""
    data, outputs, digests = Path("colour.npz").resolve(), {}, set()
    for name, weight in (("a", onnx_models.WEIGHT), ("b", -onnx_models.WEIGHT)):
        (tmp_path / name).mkdir()
        onnx_models.spread(onnx_models.linear(weight=weight), tmp_path / name / "net.onnx")
    monkeypatch.chdir(tmp_path / here)
    for name in ("a", "b"):
        words = ("--data", str(data), *ONNX[2:], "--out", f"{name}.npz")
        outputs[name] = generalist("attack", f"../{name}/net.onnx", *words).stdout
        digests.add(merge_files([Path(f"{name}.npz")])[1]["model"])
    assert "natural accuracy 100.0 %" in outputs["a"]
    assert "natural accuracy 0.0 %" in outputs["b"]
    assert len(digests) == 2


def test_a_forgotten_normalisation_is_warned_of(folder: Path) -> None:
    """With the options that help; given them, the model is what it was trained as, and the facts tell."""
    onnx.save(onnx_models.linear(), folder / "shifted.onnx")
    bright = np.random.default_rng(3).random((60, 3, 4, 5), dtype=np.float32)
    labels = ((bright - 0.5).reshape(60, -1) @ onnx_models.WEIGHT).argmax(1)
    np.savez(folder / "bright60.npz", images=bright, labels=labels)
    words = ("attack", "shifted.onnx", "--data", "bright60.npz", *ONNX[2:])
    result = generalist(*words)
    (warning,) = [line for line in result.stderr.splitlines() if "warning" in line]
    assert "did you mean --mean 0.5 --std 0.5?" in warning
    assert "100.0 %" in warning
    assert warning in generalist(*words, "--images", "0:4").stderr  # a shard is too small to tell, the data is not
    helped = generalist(*words, "--mean", "0.5", "--std", "1/2", "--out", "helped.npz")
    assert "warning" not in helped.stderr
    assert "natural accuracy 100.0 %" in helped.stdout
    assert "--mean 0.5 --std 0.5" in helped.stdout
    assert merge_files([Path("helped.npz")])[1]["normalisation"] == "--mean 0.5 --std 0.5"
    assert "--mean 0.5 --std 0.5" in generalist("merge", "helped.npz").stdout


def test_verdicts_that_do_not_tell_of_what_are_refused(folder: Path) -> None:
    """`merge` shows a threat, attacks and a seed."""
    generalist("attack", "foreign.onnx", *ONNX, "--out", "told.npz")
    result, facts = merge_files([Path("told.npz")])
    write_verdicts(folder / "untold.npz", result, {"first": facts["first"]})
    assert "doesn't tell its threat and attack and seed" in refused("merge", "untold.npz")


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
        (("foreign.safetensors", "--data", "grey.npz", "--threat", "linf:0.1"), "was not written by generalist"),
        (("foreign.pth", "--data", "grey.npz", "--threat", "linf:0.1"), "was not written by generalist"),
        (("old.pth", "--data", "grey.npz", "--threat", "linf:0.1"), "was not written by generalist"),
        (("fifo", "--data", "grey.npz", "--threat", "linf:0.1"), "not a regular file"),
        (("fifo.onnx", "--data", "grey.npz", "--threat", "linf:0.1"), "not a regular file"),
        ((".", "--data", "grey.npz", "--threat", "linf:0.1"), "not a regular file"),
        (("global.safetensors", "--data", "fifo", "--threat", "linf:0.1"), "not a regular file"),
        (("global.safetensors", "--data", "nan.npz", "--threat", "linf:0.1"), "pixels in [nan, nan]"),
        (("global.safetensors", "--data", "bright.npz", "--threat", "linf:0.1"), "divide 8-bit images by 255"),
        (("global.safetensors", "--data", "negative.npz", "--threat", "linf:0.1"), "labels in [-1, -1]"),
        (("global.safetensors", "--data", "empty.npz", "--threat", "linf:0.1"), "[0, 1, 8, 8]"),
        (("global.safetensors", "--data", "pickled.npz", "--threat", "linf:0.1"), "neither numbers nor text"),
        *(
            (("global.safetensors", "--data", "grey.npz", "--threat", "linf:0.1", "--device", name), "cpu, cuda")
            for name in ("cuda:0", "gpu", "meta", "mps", "", "CPU")
        ),
        (
            ("global.safetensors", "--data", "grey.npz", "--threat", "linf:0.1", "--mean", "0.5"),
            "leave --mean and --std out",
        ),
        *(
            ((model, "--data", data, "--threat", "linf:0.1", *words), told)
            for model, data, words, told in (
                ("conditional.safetensors", "grey.npz", (), "give --lambda"),
                (
                    "conditional.safetensors",
                    "grey.npz",
                    ("--lambda", "1.5"),
                    "lambda is 1.5, but it must lie in [0, 1]",
                ),
                (
                    "conditional.safetensors",
                    "grey.npz",
                    ("--lambda", "nan"),
                    "lambda is nan, but it must lie in [0, 1]",
                ),
                ("global.safetensors", "grey.npz", ("--lambda", "1"), "takes no lambda"),
                ("foreign.onnx", "colour.npz", ("--lambda", "1"), "takes no lambda"),
            )
        ),
        (("foreign.onnx", "--data", "colour.npz", "--threat", "linf:0.1", "--mean", "0.5,0.5"), "3 with commas"),
        (("foreign.onnx", "--data", "colour.npz", "--threat", "linf:0.1", "--std", "0"), "above 0"),
        (("foreign.onnx", "--data", "colour.npz", "--threat", "linf:0.1", "--std", "1/0"), "not one number"),
        (("foreign.onnx", "--data", "colour.npz", "--threat", "linf:0.1", "--std", "1e999999999"), "not one number"),
        (("foreign.onnx", "--data", "colour.npz", "--threat", "linf:0.1", "--mean", "nan"), "not one number"),
        (("last.onnx", "--data", "colour.npz", "--threat", "linf:0.1"), "channels last"),
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


def test_a_conditional_network_is_attacked_at_the_lambda_that_is_named(folder: Path) -> None:
    """As the library attacks it there; verdicts of other conditions are not merged with it."""
    arrays = np.load("grey.npz")
    images, labels = to_unit(torch.from_numpy(arrays["images"])), torch.from_numpy(arrays["labels"])
    for condition in ("0", "0.05"):
        result = generalist(
            "attack", "conditional.safetensors", "--data", "grey.npz", *FEW, "--lambda", condition, "--out", "v.npz"
        )
        assert result.exit_code == 0 and f", lambda {condition}" in result.stdout
        network = AtPoint(
            read_classifier(folder / "conditional.safetensors", on=torch.device("cpu")), Point(float(condition))
        )
        expected = autoattack(network, images, labels, Threat("linf", 0.05), version="quick", square_queries=20)
        found, facts = merge_files([Path("v.npz")])
        assert torch.equal(found.robust, expected.robust) and facts["lambda"] == condition
