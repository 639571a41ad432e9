"""Normalisation that a foreign model expects to be done outside of its file. No torch here."""

import re
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from generalist.errors import BadInput
from generalist.export.runtime import Float32, Runtime

SAMPLE = 200
"""Images, at most, on which normalisations are compared."""
_RISE = 0.1
_NUMBER = re.compile(r"[+-]?(\d{1,20}(\.\d{0,20})?|\.\d{1,20})(e[+-]?\d{1,2})?(/\d{1,9}(\.\d{1,9})?)?", re.IGNORECASE)


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
        """Images float32 [n, channels, height, width] as the model wants them."""
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


def doubt(model: Runtime, given: Normalisation, images: Float32, labels: NDArray[np.int64]) -> str | None:
    """A warning where some usual normalisation makes a model much more accurate than the one given.

    Args:
        model: of another's making.
        given: with which it is going to be measured.
        images: float32 [n, channels, height, width] in [0, 1]; `SAMPLE` of them, evenly spread, are looked at.
        labels: int64 [n].
    """
    chosen = np.unique(np.linspace(0, len(images) - 1, min(SAMPLE, len(images))).astype(int))
    images, labels = np.ascontiguousarray(images[chosen]), labels[chosen]
    own = float((model(given(images)).argmax(axis=1) == labels).mean())
    best, name = max((_accuracy(model, other, images, labels), name) for name, other in USUAL.items())
    if best - own <= _RISE + 1e-9:
        return None
    return (
        f"warning: {model.path} classifies {100 * own:.1f} % of {len(chosen)} images correctly, and {100 * best:.1f} %"
        f" with another normalisation ({name}): did you mean {USUAL[name]}?"
    )


def _accuracy(model: Runtime, other: Normalisation, images: Float32, labels: NDArray[np.int64]) -> float:
    if max(len(other.mean), len(other.std)) not in {1, model.channels}:
        return 0.0
    try:
        return float((model(other(images)).argmax(axis=1) == labels).mean())
    except BadInput:  # logits that are not finite: it is no candidate
        return 0.0


def _numbers(option: str, written: str, channels: int) -> tuple[float, ...]:
    parts = [part.strip() for part in written.split(",")]
    if len(parts) not in {1, channels} or not all(_NUMBER.fullmatch(part) for part in parts):
        raise BadInput(
            f"{option} {written[:80]} is not one number or {channels} with commas between them, one for each channel:"
            " write it as 0.5 or 0.485,0.456,0.406"
        )
    numbers = []
    for part in parts:
        above, _, below = part.partition("/")
        if below and not float(below):
            raise BadInput(f"{option} {written[:80]} divides by 0: write it as 0.5 or 1/255")
        number = float(above) / float(below or 1)
        if not abs(number) < 1e6:
            raise BadInput(
                f"{option} {written[:80]} is beyond any pixel: write it as 0.5 or 1/255, of pixels in [0, 1]"
            )
        numbers.append(number)
    return tuple(numbers)


def _shown(numbers: tuple[float, ...]) -> str:
    return ",".join("1/255" if number == 1 / 255 else f"{number:g}" for number in numbers)
