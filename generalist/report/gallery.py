"""Test images: clean, what the attack added, the result, and what each learner says."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from PIL import Image

Pictures = Float[NDArray[np.float32], "k channels height width"]
Probabilities = Float[NDArray[np.floating], "k classes"]

LARGEST = 96
"""Pixels: larger images show every second, third, … pixel, so that a page stays small."""

ROUNDING = 1e-6
"""Changes below this are rounding, not an attack."""

LESS, NONE, MORE = (np.array(colour, dtype=np.float32) for colour in ((0, 90, 181), (247, 247, 247), (200, 80, 0)))
"""Blue, near-white and orange: colours of a darkened, an unchanged and a brightened pixel, told apart by all eyes."""


@dataclass(frozen=True)
class Gallery:
    """A few test images before and after the attack on the deployed learner, under the headline threat.

    Attributes:
        images, adversarial: float32 [k, channels, height, width] in [0, 1].
        labels: true classes, int [k].
        class_names: by class index.
        predictions: by learner, probabilities [k, classes] of the clean and of the adversarial images.
    """

    images: Pictures
    adversarial: Pictures
    labels: Int[NDArray[np.integer], " k"]
    class_names: tuple[str, ...]
    predictions: Mapping[str, tuple[Probabilities, Probabilities]]


@dataclass(frozen=True)
class Verdict:
    """The class that a learner gives an image."""

    name: str
    probability: float
    correct: bool


@dataclass(frozen=True)
class Card:
    """One image of the gallery, ready to show.

    Attributes:
        label: name of the true class.
        clean, perturbation, adversarial: PNG data URIs.
        largest: the largest change of a pixel value; 0 for none.
        verdicts: by learner, of the clean and of the adversarial image.
    """

    label: str
    clean: str
    perturbation: str
    adversarial: str
    largest: float
    verdicts: dict[str, tuple[Verdict, Verdict]]


def cards(gallery: Gallery) -> list[Card]:
    """Return the images of a gallery, ready to show."""
    return [_card(gallery, index) for index in range(len(gallery.images))]


def _card(gallery: Gallery, index: int) -> Card:
    clean, adversarial = gallery.images[index], gallery.adversarial[index]
    label, names = int(gallery.labels[index]), gallery.class_names
    change = np.where(np.abs(adversarial - clean) < ROUNDING, np.float32(0), adversarial - clean)
    return Card(
        label=names[label],
        clean=_png(_bytes(clean)),
        perturbation=_png(_diverging(change)),
        adversarial=_png(_bytes(adversarial)),
        largest=float(np.abs(change).max()),
        verdicts={
            learner: (_verdict(before[index], label, names), _verdict(after[index], label, names))
            for learner, (before, after) in gallery.predictions.items()
        },
    )


def _verdict(probabilities: Float[NDArray[np.floating], " classes"], label: int, names: tuple[str, ...]) -> Verdict:
    top = int(probabilities.argmax())
    return Verdict(names[top], float(probabilities[top]), top == label)


def _bytes(image: Float[NDArray[np.float32], "channels height width"]) -> UInt8[NDArray[np.uint8], "height width rgb"]:
    """Return colour as colour, one channel as grey; of any other number of channels, their mean."""
    shown = image if len(image) == 3 else np.repeat(image.mean(0, keepdims=True), 3, axis=0)
    scaled: NDArray[np.uint8] = np.rint(np.clip(shown, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    return scaled


def _diverging(
    change: Float[NDArray[np.float32], "channels height width"],
) -> UInt8[NDArray[np.uint8], "height width rgb"]:
    """Return the mean change over the channels, the strongest in full colour."""
    mean = change.mean(0)
    strength = (mean / max(float(np.abs(mean).max()), 1e-12))[..., None]
    colours = NONE + np.maximum(strength, 0) * (MORE - NONE) + np.maximum(-strength, 0) * (LESS - NONE)
    scaled: NDArray[np.uint8] = np.rint(colours).astype(np.uint8)
    return scaled


def _png(pixels: UInt8[NDArray[np.uint8], "height width rgb"]) -> str:
    every = -(-max(pixels.shape[:2]) // LARGEST)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels[::every, ::every])).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
