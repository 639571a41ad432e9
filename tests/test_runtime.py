"""Running an exported file: only ours, only intact, only of the agreed interface."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from generalist.errors import BadInput
from generalist.export.runtime import TILE, Runtime
from generalist.export.seal import sealed
from tests import onnx_models
from tests.onnx_models import CHANNELS, HEIGHT, WEIGHT, WIDTH


def written(folder: Path, model: onnx.ModelProto) -> Path:
    """The model in a sealed file."""
    path = folder / "model.onnx"
    path.write_bytes(sealed(model, {}))
    return path


def test_many_images_are_as_good_as_few(tmp_path: Path) -> None:
    """Images beyond one tile get their own logits, in order."""
    runtime = Runtime(written(tmp_path, onnx_models.linear()))
    images = np.random.default_rng(0).random((2 * TILE + 3, CHANNELS, HEIGHT, WIDTH), dtype=np.float32)
    expected = images.reshape(len(images), -1) @ WEIGHT
    np.testing.assert_allclose(runtime(images), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        onnx_models.linear(names=("x", "logits")),
        onnx_models.linear(names=("images", "y")),
        onnx_models.linear(shape=(1, CHANNELS, HEIGHT, WIDTH)),
        onnx_models.linear(shape=("batch", CHANNELS, "height", WIDTH)),
        onnx_models.linear(shape=("batch", CHANNELS, HEIGHT * WIDTH)),
        onnx_models.linear(dtype=TensorProto.DOUBLE),
    ],
    ids=["input name", "output name", "fixed batch", "free height", "rank", "double"],
)
def test_a_model_of_another_interface_is_refused(model: onnx.ModelProto, tmp_path: Path) -> None:
    """The sentence says what the file has and what is expected."""
    with pytest.raises(
        BadInput, match=r"model\.onnx is no image classifier of ours: it has .*, expected images float32"
    ):
        Runtime(written(tmp_path, model))


def test_a_model_that_the_runtime_does_not_know_is_refused(tmp_path: Path) -> None:
    """An operator from elsewhere is a sentence, not a stack trace."""
    with pytest.raises(BadInput, match=r"model\.onnx can't be run by ONNX Runtime .*MatMul"):
        Runtime(written(tmp_path, onnx_models.linear(domain="elsewhere")))


def test_a_changed_file_is_not_loaded(tmp_path: Path) -> None:
    """The seals are checked before anything is run."""
    path = written(tmp_path, onnx_models.linear())
    path.write_bytes(path.read_bytes().replace(b"made_by_hand", b"made_by_head"))
    with pytest.raises(BadInput, match="was changed after export"):
        Runtime(path)
