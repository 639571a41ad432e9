"""torch and ONNX Runtime compared, on a linear classifier whose file is made by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from generalist.errors import BadInput
from generalist.export import Parity, check_parity
from generalist.export.integrity import with_digests
from generalist.export.runtime import TILE
from generalist.models import Classifier
from generalist.tensors import ImageShape
from tests import onnx_models
from tests.onnx_models import CHANNELS, CLASSES, HEIGHT, WEIGHT, WIDTH


class _Linear(Classifier):
    def __init__(self, weight: NDArray[np.float32], size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
        super().__init__(ImageShape(CHANNELS, *size, CLASSES, mean=(0.0,) * CHANNELS, std=(1.0,) * CHANNELS))
        self.register_buffer("weight", torch.tensor(weight))

    def embed(self, normalised: Tensor) -> Tensor:
        return normalised.flatten(1)

    def raw_outputs(self, features: Tensor) -> Tensor:
        return features @ self.get_buffer("weight")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of the classifier with WEIGHT."""
    path = tmp_path / "model.onnx"
    path.write_bytes(with_digests(onnx_models.linear(), {}))
    return path


def pictures(count: int) -> NDArray[np.uint8]:
    """Random 8-bit images."""
    return np.random.default_rng(0).integers(0, 256, (count, CHANNELS, HEIGHT, WIDTH), dtype=np.uint8)


def floats(count: int) -> NDArray[np.float32]:
    """Random images in [0, 1]."""
    return np.random.default_rng(1).random((count, CHANNELS, HEIGHT, WIDTH), dtype=np.float32)


def logits(weight: NDArray[np.float32], *images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what the classifier with this weight says, by numpy."""
    return np.concatenate([part.reshape(len(part), onnx_models.PIXELS) for part in images]) @ weight


def test_clean_and_adversarial_images_are_compared(path: Path) -> None:
    """All images count, in more than one tile and from read-only arrays; the model's mode is left alone."""
    model, images, adversarial = _Linear(WEIGHT).train(), pictures(TILE + 3), floats(5)
    images.flags.writeable = adversarial.flags.writeable = False
    result = check_parity(model, path, images, adversarial, tolerance=1e-5)
    assert result.passed
    assert result.provider == "CPUExecutionProvider"
    assert (result.n, result.disagreements, result.tolerance) == (TILE + 8, 0, 1e-5)
    expected = logits(WEIGHT, images.astype(np.float32) / np.float32(255), adversarial)
    assert result.largest_logit == pytest.approx(np.abs(expected).max(), rel=1e-5)
    assert model.training
    assert check_parity(model, path, images, torch.tensor(adversarial), tolerance=1e-5) == result
    assert Parity.model_validate_json(result.model_dump_json()) == result


@pytest.mark.parametrize(("clean", "adversarial"), [(20, 0), (0, 20), (TILE + 5, 7)])
def test_another_model_is_found(path: Path, clean: int, adversarial: int) -> None:
    """A difference on clean, or on adversarial images alone, is found and measured."""
    weight = np.random.default_rng(2).normal(size=WEIGHT.shape).astype(np.float32)
    images, points = pictures(clean), floats(adversarial)
    result = check_parity(_Linear(weight), path, images, points, tolerance=1e-4)
    ours, theirs = (logits(one, images.astype(np.float32) / np.float32(255), points) for one in (WEIGHT, weight))
    assert not result.passed
    assert result.disagreements == int((ours.argmax(1) != theirs.argmax(1)).sum()) > 0
    assert result.max_difference == pytest.approx(np.abs(ours - theirs).max(), rel=1e-4)


def test_a_small_difference_needs_the_tolerance(path: Path) -> None:
    """Where predictions agree, the largest difference decides."""
    model = _Linear(WEIGHT + np.float32(1e-3))
    loose, strict = (check_parity(model, path, pictures(9), floats(9), tolerance=limit) for limit in (0.1, 1e-4))
    assert (loose.disagreements, loose.passed, strict.passed) == (0, True, False)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_logit_that_is_not_finite_is_a_disagreement(path: Path, value: float) -> None:
    """No tolerance is wide enough for it, and the same prediction, which chance gives some images, is no excuse."""
    favourite = int(logits(WEIGHT, floats(20)).argmax(axis=1)[0])
    weight = WEIGHT.copy()
    weight[0, favourite] = value  # an argmax takes inf, and nan, for the largest
    result = check_parity(_Linear(weight), path, pictures(20), floats(10), tolerance=1e9)
    assert (result.disagreements, result.passed, result.max_difference) == (30, False, 0.0)


def test_images_are_needed_and_of_the_right_shape(path: Path) -> None:
    """No image at all proves nothing; images of another shape are refused."""
    with pytest.raises(ValueError, match="parity needs at least one image"):
        check_parity(_Linear(WEIGHT), path, pictures(0), floats(0), tolerance=1e-4)
    turned = np.zeros((2, CHANNELS, WIDTH, HEIGHT), np.uint8)
    with pytest.raises(BadInput, match=r"takes images float32 \['n', 3, 4, 5\], found float32 \[2, 3, 5, 4\]"):
        check_parity(_Linear(WEIGHT, (WIDTH, HEIGHT)), path, turned, floats(0), tolerance=1e-4)


@given(
    difference=st.floats(0, 10), largest=st.floats(0, 100), disagreements=st.integers(0, 2), tolerance=st.floats(0, 1)
)
@example(difference=0.5, largest=0.1, disagreements=0, tolerance=0.6)
@example(difference=5, largest=10, disagreements=0, tolerance=0.6)
@example(difference=7, largest=10, disagreements=0, tolerance=0.6)
def test_it_is_passed_within_the_tolerance(
    difference: float, largest: float, disagreements: int, tolerance: float
) -> None:
    """Relative to the largest logit, absolute where logits are small; predictions must all be the same."""
    result = Parity(
        n=9, max_difference=difference, largest_logit=largest, disagreements=disagreements, tolerance=tolerance
    )
    assert result.passed == (not disagreements and difference <= tolerance * (largest if largest > 1 else 1))
