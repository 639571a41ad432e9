"""Normalisation that a foreign model expects to be done outside of its file. No torch here."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from generalist.config import Quantity
from generalist.errors import BadInput
from generalist.export.runtime import Float32, Runtime
from generalist.significance import mcnemar

SAMPLE = 500
"""Images, at most, on which normalisations are compared."""
_LEVEL = 0.01  # of the paired tests together
_LARGE, _LARGE_LEVEL = 0.1, 0.05  # such a rise has another level: a few dozen images can't show it at the first
_FLAT = 1e-3  # a standard deviation too small to divide by
_BEYOND = 1e6  # of any pixel


@dataclass(frozen=True)
class Normalisation:
    """(image - mean) / std, channel by channel; one number stands for all channels."""

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @classmethod
    def parse(cls, mean: str | None, std: str | None, channels: int) -> Self:
        """Read `--mean` and `--std`: numbers or fractions such as 1/255, as many as channels or one.

        Raises:
            BadInput: they are not that, or a standard deviation is not above 0.
        """
        means = (0.0,) if mean is None else _numbers("--mean", mean, channels)
        stds = (1.0,) if std is None else _numbers("--std", std, channels)
        if min(stds) <= 0:
            raise BadInput(f"--std {std} must be above 0, as images are divided by it: name the one of the training")
        return cls(means, stds)

    def __call__(self, images: Float32) -> Float32:
        """Return images float32 [n, channels, height, width] as the model wants them."""
        mean, std = (np.array(numbers, dtype=np.float32)[:, None, None] for numbers in (self.mean, self.std))
        normalised: Float32 = (images - mean) / std
        return normalised

    def __str__(self) -> str:
        return f"--mean {_shown(self.mean)} --std {_shown(self.std)}"


NONE = Normalisation()
USUAL = {
    "ImageNet's": Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "CIFAR-10's": Normalisation((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "MNIST's": Normalisation((0.1307,), (0.3081,)),
    "to [-1, 1]": Normalisation((0.5,), (0.5,)),
    "to [0, 255]": Normalisation((0.0,), (1 / 255,)),
    "none": NONE,
}
"""What networks are commonly trained with, by name."""


def looked_at(count: int) -> NDArray[np.int64]:
    """Return the positions of `SAMPLE` images at most, evenly spread over so many."""
    return np.unique(np.linspace(0, count - 1, min(SAMPLE, count)).astype(np.int64))


def doubt(model: Runtime, given: Normalisation, images: Float32, labels: NDArray[np.int64]) -> str | None:
    """Return a warning where another normalisation makes a model significantly more accurate than the one given.

    Tried are the usual ones and that by the mean and the standard deviation of the images. The most accurate one must
    win by McNemar's test, image by image, at a level that all that are tried share (Bonferroni); a rise by more than
    ten points, at the usual one.

    Args:
        model: of another's making.
        given: with which it is going to be measured.
        images: float32 [n, channels, height, width] in [0, 1], such as those that `looked_at` names.
        labels: int64 [n].
    """
    others = {**USUAL, "that of these images": _own(images)}
    right = _right(model, given, images, labels)
    right_by_name = {name: _right(model, other, images, labels) for name, other in others.items()}
    name = max(right_by_name, key=lambda name: int(right_by_name[name].sum()))
    gained, lost = int((right_by_name[name] & ~right).sum()), int((right & ~right_by_name[name]).sum())
    large = gained - lost > _LARGE * len(labels)
    if mcnemar(gained, lost) >= (_LARGE_LEVEL if large else _LEVEL / len(others)):
        return None
    return (
        f"warning: {model.path} classifies {100 * right.mean():.1f} % of {len(labels)} images correctly, and"
        f" {100 * right_by_name[name].mean():.1f} % with another normalisation ({name}): did you mean {others[name]}?"
    )


def _own(images: Float32) -> Normalisation:
    """Normalise by each channel's mean and standard deviation; a channel that is the same everywhere stays as it is."""
    mean, std = images.mean(axis=(0, 2, 3), dtype=np.float64), images.std(axis=(0, 2, 3), dtype=np.float64)
    if std.min() < _FLAT:
        return NONE
    return Normalisation(
        tuple(round(float(value), 4) for value in mean), tuple(round(float(value), 4) for value in std)
    )


def _right(model: Runtime, other: Normalisation, images: Float32, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return bool [n], which images are classified correctly; none where the model doesn't take them so."""
    none = np.zeros(len(images), dtype=np.bool_)
    if max(len(other.mean), len(other.std)) not in {1, model.channels}:
        return none
    try:
        right: NDArray[np.bool_] = model(other(images)).argmax(axis=1) == labels
    except BadInput:  # logits that are not finite: it is no candidate
        return none
    return right


def _numbers(option: str, written: str, channels: int) -> tuple[float, ...]:
    try:
        numbers = tuple(float(Quantity(part.strip())) for part in written.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in {1, channels} or max(map(abs, numbers)) >= _BEYOND:
        raise BadInput(
            f"{option} {written[:80]} is not one number or {channels} with commas between them, one for each channel,"
            " of pixels in [0, 1]: write it as 0.5, 1/255 or 0.485,0.456,0.406"
        )
    return numbers


def _shown(numbers: tuple[float, ...]) -> str:
    return ",".join("1/255" if number == 1 / 255 else f"{number:g}" for number in numbers)
