"""Running an exported file: only ours, only intact, only of the agreed interface."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from generalist.errors import BadInput
from generalist.export.integrity import with_digests
from generalist.export.runtime import TILE, Runtime
from tests import onnx_models
from tests.onnx_models import CHANNELS, HEIGHT, WEIGHT, WIDTH


def written(folder: Path, model: onnx.ModelProto) -> Path:
    """Return the model in a sealed file."""
    path = folder / "model.onnx"
    path.write_bytes(with_digests(model, {}))
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


def test_where_it_computes_is_told(tmp_path: Path) -> None:
    """On the CPU, unless somebody asks for something else."""
    assert Runtime(written(tmp_path, onnx_models.linear())).provider == "CPUExecutionProvider"


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="ONNX Runtime has CUDA")
def test_a_gpu_that_the_runtime_does_not_have_is_refused(tmp_path: Path) -> None:
    """It is never assumed, and never silently replaced."""
    with pytest.raises(BadInput, match=r"has no CUDAExecutionProvider here: install onnxruntime-gpu .* or use the CPU"):
        Runtime(written(tmp_path, onnx_models.linear()), on="cuda")


@pytest.mark.parametrize("works", [True, False])
def test_a_gpu_is_taken_without_tf32_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, works: bool
) -> None:
    """By a double of a session with CUDA; where its libraries don't load, ONNX Runtime goes to the CPU by itself."""
    session, asked = onnxruntime.InferenceSession, []

    class OnGpu(session):  # type: ignore[misc,valid-type]  # onnxruntime has no types
        def __init__(self, content: bytes, options: object, providers: list[object]) -> None:
            asked.extend(providers)
            super().__init__(content, options, providers=["CPUExecutionProvider"])

        def get_providers(self) -> list[str]:
            own: list[str] = super().get_providers()
            return ["CUDAExecutionProvider", *own] if works else own

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", OnGpu)
    path = written(tmp_path, onnx_models.linear())
    if works:
        assert Runtime(path, on="cuda").provider == "CUDAExecutionProvider"
    else:
        with pytest.raises(BadInput, match="has CUDAExecutionProvider but can't use it"):
            Runtime(path, on="cuda")
    assert asked == [("CUDAExecutionProvider", {"use_tf32": "0"})]
