"""Dummy classes as people take them away: the ONNX file is the fold, and weights are attacked through all views."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generalist.attacks import autoattack
from generalist.config import canonical
from generalist.export import check_parity, export, read_classifier, write_weights
from generalist.export.runtime import Runtime
from generalist.models import Classifier
from generalist.tensors import to_unit
from generalist.threats import Threat
from pipelines.cli.model_files import open_target
from tests.model_factory import GREY, made, options

N = 16
THREAT = Threat("linf", 0.02)
PIXELS = torch.randint(256, (N, 1, 8, 8), generator=torch.Generator().manual_seed(5), dtype=torch.uint8)
IMAGES = to_unit(PIXELS)
OPTIONS = {"head": {"name": "dummy"}, "width": 4}


pytestmark = [pytest.mark.long, pytest.mark.usefixtures("short_gradients")]


@pytest.fixture(scope="module")
def model() -> Classifier:
    """A small network with random weights."""
    return made("small_cnn", **OPTIONS).eval()


@pytest.fixture(scope="module")
def labels(model: Classifier) -> Tensor:
    """What it says to the images."""
    with torch.no_grad():
        return model.decision(model(IMAGES)).argmax(1)


class Twin(nn.Module):
    """What an ONNX file of `small_cnn` computes, by its own weights, written anew: for gradients, which it has none."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        content = onnx.load(path)
        self.weights = {
            tensor.name.removeprefix("model."): torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
            for tensor in content.graph.initializer
        }

    def forward(self, images: Tensor) -> Tensor:
        own = self.weights
        hidden = F.pixel_unshuffle((images - GREY.mean[0]) / GREY.std[0], 2)
        for layer in ("conv1", "conv2"):
            hidden = F.conv2d(hidden, own[f"{layer}.weight"], own[f"{layer}.bias"], padding=1).relu()
        raw = F.linear(hidden.flatten(1), own["linear.weight"], own["linear.bias"])
        return torch.stack((raw[:, :10], raw[:, 10:])).amax(0)


def test_the_file_s_twin_and_the_folded_model_agree_image_by_image(
    model: Classifier, labels: Tensor, tmp_path: Path
) -> None:
    """Under AutoAttack; the classifier, which brings its views, is broken wherever its fold alone is."""
    export(model, tmp_path / "model.onnx", metadata={}, opset=18)
    twin = Twin(tmp_path / "model.onnx")
    runtime = Runtime(tmp_path / "model.onnx")
    assert runtime.classes == 10
    torch.testing.assert_close(torch.from_numpy(runtime(IMAGES.numpy())), twin(IMAGES), rtol=1e-4, atol=1e-5)
    folded = autoattack(lambda images: model.decision(model(images)), IMAGES, labels, THREAT)
    same = autoattack(twin, IMAGES, labels, THREAT)
    assert torch.equal(folded.robust, same.robust) and folded.fooled_by == same.fooled_by
    assert 2 <= folded.robust.sum() <= N - 2
    known = autoattack(model, IMAGES, labels, THREAT)
    assert (folded.robust | ~known.robust).all()
    adversarial = known.adversarial.numpy()
    assert check_parity(model, tmp_path / "model.onnx", PIXELS.numpy(), adversarial, tolerance=1e-4).passed


def test_weights_bring_their_head(model: Classifier, tmp_path: Path) -> None:
    """What `generalist attack` opens has the fold and every view; a plain network's file says what it did before."""
    path = tmp_path / "global.safetensors"
    chosen = options("small_cnn", **OPTIONS)
    write_weights(path, model.state_dict(), model=chosen, shape=GREY, data="")
    target = open_target(path, torch.device("cpu"), 1, (1, 8, 8), None, None, None, None).network
    assert isinstance(target, Classifier) and target.head == model.head
    assert [*target.views()] == ["decision", "logsumexp", "joint", "joint-even"] and not target.training
    with torch.no_grad():
        np.testing.assert_array_equal(target.decision(target(IMAGES)), model.decision(model(IMAGES)))
    plain = options("small_cnn", width=4)
    assert canonical(plain) == {"name": "small_cnn", "width": 4}
    write_weights(path, made("small_cnn", width=4).state_dict(), model=plain, shape=GREY, data="")
    assert [*read_classifier(path, on=torch.device("cpu")).views()] == ["decision"]
