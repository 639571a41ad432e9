"""A forgotten normalisation of a foreign network is noticed, and a sound network left alone."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

from generalist.export.normalisation import NONE, Normalisation, doubt, looked_at
from generalist.export.runtime import Runtime
from tests.onnx_models import WEIGHT, linear

TRAINED_ON = 1300


@dataclass(frozen=True)
class Digits:
    """Images float32 [n, 1, 8, 8] in [0, 1] and their labels."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]

    @property
    def normalisation(self) -> Normalisation:
        """By the training images."""
        seen = self.images[:TRAINED_ON]
        return Normalisation((round(float(seen.mean()), 4),), (round(float(seen.std()), 4),))


@pytest.fixture(scope="module")
def digits() -> Digits:
    """scikit-learn's."""
    known = load_digits()
    return Digits((known.images / 16).astype(np.float32)[:, None], known.target.astype(np.int64))


@pytest.fixture(scope="module", params=["outside", "nowhere"])
def network(
    request: pytest.FixtureRequest, digits: Digits, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Runtime, Normalisation]:
    """A network trained on normalised digits, or on digits as they are, and the normalisation that it wants."""
    wanted = digits.normalisation if request.param == "outside" else NONE
    torch.manual_seed(0)
    layers = [torch.nn.Flatten(), torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)]
    net = torch.nn.Sequential(*layers)
    images = torch.from_numpy(wanted(digits.images[:TRAINED_ON]))
    labels, optimizer = torch.from_numpy(digits.labels[:TRAINED_ON]), torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
    path = tmp_path_factory.mktemp(request.param) / "net.onnx"
    onnx.save(_written(net.state_dict()), path)
    return Runtime(path, foreign=True), wanted


def _written(weights: dict[str, torch.Tensor]) -> onnx.ModelProto:
    """Flatten, linear, ReLU, linear."""
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("Gemm", ["flat", "1.weight", "1.bias"], ["hidden"], transB=1),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "3.weight", "3.bias"], ["logits"], transB=1),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("images", ("n", 1, 8, 8)), ("logits", ("n", 10)))
    ]
    tensors = [numpy_helper.from_array(tensor.detach().numpy(), name) for name, tensor in weights.items()]
    graph = helper.make_graph(nodes, "digits", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_a_normalisation_is_missed_where_there_was_one(network: tuple[Runtime, Normalisation], digits: Digits) -> None:
    """One sentence with the option, which mends it; a network that wants none is left alone, as one that has its own."""
    runtime, wanted = network
    images, labels = digits.images[TRAINED_ON:], digits.labels[TRAINED_ON:]
    shown = looked_at(len(labels))
    reason = doubt(runtime, NONE, images[shown], labels[shown])
    assert doubt(runtime, wanted, images[shown], labels[shown]) is None
    if wanted == NONE:
        assert reason is None
        return
    assert reason is not None
    assert "\n" not in reason
    (mean, std) = re.findall(r"--(?:mean|std) (\S+?)[?\s]", f"{reason} ")
    meant = Normalisation.parse(mean, std, 1)
    accuracy = [float((runtime(own(images)).argmax(1) == labels).mean()) for own in (NONE, meant, wanted)]
    assert accuracy[0] < accuracy[2] - 0.05
    assert accuracy[1] > accuracy[0] + 0.05


def test_a_normalisation_too_much_is_missed_too(network: tuple[Runtime, Normalisation], digits: Digits) -> None:
    """Whatever is given, what is significantly better is named."""
    runtime, wanted = network
    if wanted == NONE:
        reason = doubt(runtime, Normalisation((0.5,), (1 / 255,)), digits.images[:200], digits.labels[:200])
        assert reason is not None and "did you mean --mean" in reason


def test_a_few_images_more_are_no_reason(tmp_path: Path) -> None:
    """A difference that may be chance is not told."""
    onnx.save(linear(), tmp_path / "net.onnx")
    runtime = Runtime(tmp_path / "net.onnx", foreign=True)
    images = np.random.default_rng(3).random((6, 3, 4, 5), dtype=np.float32)
    labels = ((images - 0.5).reshape(6, -1) @ WEIGHT).argmax(1)
    assert doubt(runtime, NONE, images, labels) is None


def test_images_of_one_colour_are_no_normalisation(tmp_path: Path) -> None:
    """Nothing is divided by a standard deviation of 0."""
    onnx.save(linear(), tmp_path / "net.onnx")
    runtime = Runtime(tmp_path / "net.onnx", foreign=True)
    images, labels = np.full((50, 3, 4, 5), 0.25, dtype=np.float32), np.zeros(50, dtype=np.int64)
    assert doubt(runtime, NONE, images, labels + runtime(images).argmax(1)[0]) is None
