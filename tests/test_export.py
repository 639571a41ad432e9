"""From a classifier to an ONNX file: the deployed rule, reproducible bytes, and use without this project."""

import ast
import hashlib
import os
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from google.protobuf.message import Message  # type: ignore[import-untyped]  # it comes without types
from numpy.typing import NDArray
from torch import Tensor, nn

import generalist.export
from generalist.config.section import plugin
from generalist.errors import BadInput
from generalist.export import Predictor, check_parity, export, graph_digest, verify
from generalist.export.integrity import with_digests
from generalist.export.runtime import Runtime
from generalist.models import Classifier, Head, build, initialise
from generalist.tensors import ImageShape, to_unit
from tests import onnx_models
from tests.model_factory import TINY

GREY = ImageShape(1, 8, 8, 4, mean=(0.3,), std=(0.4,))
METADATA = {"class_names": '["cat","dog","owl","yak"]', "git_commit": "0" * 40}
OPTIONS = {"name": "small_cnn", "width": 4}

AGAIN = """
import sys, torch
from pathlib import Path
from generalist.config.section import plugin
from generalist.export import export
from generalist.models import build, initialise
from generalist.tensors import ImageShape
model = build(plugin("models", {options}), {shape})
initialise(model, torch.Generator().manual_seed(0))
print(export(model, Path("again.onnx"), metadata={metadata}, opset=18))
"""


@dataclass(frozen=True)
class Exported:
    """A model and its file."""

    model: Classifier
    path: Path
    sha256: str


def made(options: dict[str, Any], seed: int = 0, shape: ImageShape = GREY) -> Classifier:
    """Return a model with initial weights."""
    model = build(plugin("models", options), shape)
    initialise(model, torch.Generator().manual_seed(seed))
    return model


def pictures(count: int, shape: ImageShape = GREY) -> NDArray[np.uint8]:
    """Random 8-bit images."""
    size = (count, shape.channels, shape.height, shape.width)
    return np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)


def floats(count: int) -> NDArray[np.float32]:
    """Random grey images in [0, 1]."""
    return np.random.default_rng(1).random((count, 1, 8, 8), dtype=np.float32)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A model in training mode, exported."""
    model, path = made(OPTIONS), tmp_path_factory.mktemp("export") / "deep" / "model.onnx"
    return Exported(model, path, export(model, path, metadata=METADATA, opset=18))


def test_one_file_with_the_agreed_interface(exported: Exported) -> None:
    """`images` float32 [batch, C, H, W] to `logits` float32 [batch, classes], of the operator set asked for."""
    assert [file.name for file in exported.path.parent.iterdir()] == ["model.onnx"]
    assert exported.sha256 == hashlib.sha256(exported.path.read_bytes()).hexdigest()
    session = onnxruntime.InferenceSession(str(exported.path), providers=["CPUExecutionProvider"])
    (images,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape) == ("images", "tensor(float)", ["batch", 1, 8, 8])
    assert (logits.name, logits.type, logits.shape) == ("logits", "tensor(float)", ["batch", 4])
    assert onnx.load(exported.path).opset_import[0].version == 18
    metadata = verify(exported.path)
    assert {key: metadata[key] for key in METADATA} == METADATA


@pytest.mark.long  # the other process imports for ten seconds
def test_equal_weights_and_metadata_give_equal_bytes(exported: Exported, tmp_path: Path, root: Path) -> None:
    """Another process, in another folder and with other hashes of strings, writes the same file."""
    script = AGAIN.format(options=OPTIONS, shape=repr(GREY), metadata=dict(reversed(METADATA.items())))
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr) == ([exported.sha256], "")
    assert (tmp_path / "again.onnx").read_bytes() == exported.path.read_bytes()


def test_the_file_says_nothing_of_where_it_was_made(exported: Exported, root: Path) -> None:
    """No notes at any part of the graph, no path, no version of the exporter."""

    def notes(message: Message) -> Iterator[str]:
        for field, value in message.ListFields():
            if field.name in {"doc_string", "metadata_props"}:
                yield field.name
            elif field.message_type is not None:
                for part in [value] if isinstance(value, Message) else value:
                    yield from notes(part)

    model = onnx.load(exported.path)
    assert (model.producer_name, model.producer_version) == ("generalist", "")
    assert not list(notes(model.graph))
    assert {entry.key for entry in model.metadata_props} == {*METADATA, "graph_digest", "metadata_digest"}
    content = exported.path.read_bytes()
    assert not [word for word in (str(root), "site-packages", ".py", "torch") if word.encode() in content]


def test_exporting_changes_nothing_of_the_model(exported: Exported) -> None:
    """Mode, weights, gradients and the global generator are as they were: the fixture's model is still in training."""
    model, fresh = exported.model, made(OPTIONS)
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), fresh.state_dict().values(), strict=True))


class _Larger(Head):
    """Two outputs a class, of which the decision takes the larger."""

    def decision(self, raw: Tensor) -> Tensor:
        return torch.maximum(raw[:, :4], raw[:, 4:])


class _TwoOutputsAClass(Classifier):
    """With BatchNorm, which tells training from evaluation."""

    def __init__(self) -> None:
        super().__init__(GREY, _Larger(4))
        self.bn = nn.BatchNorm2d(1)
        self.linear = nn.Linear(64, 8)

    def embed(self, normalised: Tensor) -> Tensor:
        hidden: Tensor = self.bn(normalised).flatten(1)
        return hidden


def test_the_file_is_the_deployed_rule(tmp_path: Path) -> None:
    """The decision is inside, in eval mode; drawing nothing from the global generator."""
    model, path = _TwoOutputsAClass(), tmp_path / "model.onnx"
    initialise(model, torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.train()(torch.tensor(3 * floats(20)))
    before = torch.get_rng_state()
    export(model, path, metadata={}, opset=23)
    assert torch.equal(torch.get_rng_state(), before)
    images = floats(5)
    with torch.no_grad():
        raw = model.eval()(torch.tensor(images)).numpy()
    np.testing.assert_allclose(Runtime(path)(images), np.maximum(raw[:, :4], raw[:, 4:]), atol=1e-5)


DEEP = [name for name in TINY if name != "small_cnn"]
OPSETS = [pytest.param(name, 18 + 3 * (index % 2), marks=pytest.mark.long) for index, name in enumerate(DEEP)]


@pytest.mark.parametrize(("name", "opset"), [("small_cnn", 18), *OPSETS])
def test_architectures_keep_their_predictions(name: str, opset: int, tmp_path: Path) -> None:
    """Every one, on colour images, with statistics from training, agrees with torch."""
    shape = ImageShape(3, 8, 8, 4, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    model, path, images = made({"name": name, **TINY[name]}, shape=shape), tmp_path / "model.onnx", pictures(30, shape)
    with torch.no_grad():
        for _ in range(5):
            model.train()(to_unit(torch.tensor(images)))
    export(model, path, metadata=METADATA, opset=opset)
    result = check_parity(model, path, images, np.empty((0, 3, 8, 8), np.float32), tolerance=1e-4)
    assert result.passed, result
    assert onnx.load(path).opset_import[0].version == opset


def test_other_weights_have_another_graph_digest(exported: Exported, tmp_path: Path) -> None:
    """The digest in the file is that of graph and weights, whatever the metadata."""
    model = onnx.load(exported.path)
    (tmp_path / "other.onnx").write_bytes(with_digests(model, {"other": "metadata"}))
    assert graph_digest(tmp_path / "other.onnx") == graph_digest(exported.path)
    weight = next(part for part in model.graph.initializer if part.name.endswith("conv1.weight"))
    weight.raw_data = bytes(reversed(weight.raw_data))
    (tmp_path / "other.onnx").write_bytes(with_digests(model, METADATA))
    assert graph_digest(tmp_path / "other.onnx") != graph_digest(exported.path)


def test_an_operator_set_that_can_not_be_had_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too old a set is refused before work; so is a file of another set than asked for, which torch only logs."""
    path = tmp_path / "model.onnx"
    with pytest.raises(BadInput, match=r"export\.opset is 17, but torch exports from 18 on"):
        export(made(OPTIONS), path, metadata={}, opset=17)
    fake = types.SimpleNamespace(model_proto=onnx_models.linear())
    monkeypatch.setattr(torch.onnx, "export", lambda *_arguments, **_options: fake)
    with pytest.raises(BadInput, match=r"export\.opset is 20, but torch could not convert this model to it"):
        export(made(OPTIONS), path, metadata={}, opset=20)
    assert not path.exists()


def test_a_path_that_can_not_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder where the file, or a file where a folder should be, is refused before any work, and stays."""
    monkeypatch.setattr(torch.onnx, "export", lambda *_arguments, **_options: pytest.fail("work was begun"))
    (tmp_path / "file").write_text("content", encoding="utf-8")
    with pytest.raises(BadInput, match=r"it is a folder; name another file"):
        export(made(OPTIONS), tmp_path, metadata={}, opset=18)
    with pytest.raises(BadInput, match=r"file.* can't be written"):
        export(made(OPTIONS), tmp_path / "file" / "model.onnx", metadata={}, opset=18)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_the_snippet_of_the_readme_needs_numpy_and_onnxruntime_alone(
    exported: Exported, tmp_path: Path, root: Path
) -> None:
    """Ten lines give the accuracy that the predictor gives, from the arrays that `prepare` writes."""
    script = (root / "docs/snippets/run_onnx.py").read_text(encoding="utf-8")
    modules = [
        alias.name for node in ast.walk(ast.parse(script)) if isinstance(node, ast.Import) for alias in node.names
    ]
    assert sorted(modules) == ["numpy", "onnxruntime"]
    assert "from " not in script
    assert len([line for line in script.splitlines() if line.strip()]) == 10
    images = pictures(700)
    answers = Predictor(exported.path).predict(images.astype(np.float32) / np.float32(255)).argmax(axis=1)
    labels = np.where(np.arange(700) % 4, answers, (answers + 1) % 4).astype(np.int64)
    np.save(tmp_path / "test_images.npy", images)
    np.save(tmp_path / "test_labels.npy", labels)
    (tmp_path / "model.onnx").write_bytes(exported.path.read_bytes())
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("natural accuracy 75.0 %, n = 700\n", "")


def test_the_package_has_no_other_names() -> None:
    """Names are found when asked for, and a misspelt one is missing as from any module."""
    names = " ".join(generalist.export._NAMES.values()).split()
    assert all(getattr(generalist.export, name).__name__ == name for name in names)
    written = Path(generalist.export.__file__).read_text(encoding="utf-8")  # once for types, once for when it runs
    assert sorted(names) == sorted(re.findall(r"import \w+ as (\w+)", written))
    with pytest.raises(AttributeError, match=r"module generalist\.export has no attribute exprot"):
        _ = generalist.export.exprot
