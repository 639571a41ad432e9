"""Class names and probabilities for images, by an exported model. No torch here: it answers at once."""

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from generalist.data import decoding, image_files
from generalist.errors import BadInput
from generalist.export.runtime import Float32, Runtime, Where
from generalist.untrusted import printable

TILE = 64
"""Images that are decoded and predicted at a time: bounds memory."""


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image file.

    Attributes:
        file: the image.
        class_name: the most probable class.
        probability: its probability.
        probabilities: of all classes, in the model's order.
    """

    file: Path
    class_name: str
    probability: float
    probabilities: tuple[float, ...]

    @property
    def shown(self) -> str:
        """The file's name as it can be shown in one line."""
        return printable(self.file)


class Predictor:
    """An exported model that is asked for probabilities.

    Attributes:
        class_names: by class index.
        provider: the execution provider that computes, by ONNX Runtime's name.
    """

    def __init__(self, path: Path, *, threads: int = 1, on: Where = "cpu", condition: float | None = None) -> None:
        """Check the file's seals and load it; `condition` is lambda, by default what its metadata says.

        Raises:
            BadInput: the file is missing or changed, or is not a model of images to the logits of named classes; or
                ONNX Runtime has no such device here; or it takes no such condition.
        """
        self._runtime = Runtime(path, threads=threads, on=on, condition=condition)
        self.provider = self._runtime.provider
        self.class_names = _class_names(self._runtime)

    def predict(self, images: Float32) -> Float32:
        """Return the probabilities float32 [n, classes] of images float32 [n, channels, height, width] in [0, 1].

        Raises:
            BadInput: the images have another shape, type or range.
        """
        if images.size and not (images.min() >= 0 and images.max() <= 1):
            raise BadInput(
                f"pixels must lie in [0, 1], found [{images.min()}, {images.max()}]: divide 8-bit images by 255"
            )
        logits = self._runtime(images)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities: Float32 = powers / powers.sum(axis=1, keepdims=True)
        return probabilities

    def predict_each(self, paths: Iterable[Path]) -> "Iterator[Prediction | decoding.UnreadableImage]":
        """Predict image files as they come: images that can't be read are given as the error that says why.

        Folders are searched, and images decoded, as `prepare` does: turned as their camera says, converted to the
        model's channels, and resized to its height and width (bilinear, antialiased). Of 16 bits a channel the upper
        8 are taken. What a folder's search left out is logged. Images are held in memory 64 at a time.

        Raises:
            BadInput: a file or folder is missing, a folder has no images, or the model takes other channels than
                images have. Raised before the first prediction.
        """
        runtime = self._runtime
        if runtime.channels not in (1, 3):
            raise BadInput(f"{runtime.path} takes {runtime.channels} channels, and image files have 1 or 3: use arrays")
        files = _image_files(list(paths))
        for start in range(0, len(files), TILE):
            yield from self._tile(files[start : start + TILE])

    def _tile(self, files: list[Path]) -> "Iterator[Prediction | decoding.UnreadableImage]":
        images: list[NDArray[np.uint8]] = []
        readable: list[Path] = []
        runtime = self._runtime
        size, grayscale = (runtime.height, runtime.width), runtime.channels == 1
        for file in files:
            try:
                images.append(decoding.decode(decoding.content(file), size=size, grayscale=grayscale, path=file))
            except decoding.UnreadableImage as error:
                yield error
            else:
                readable.append(file)
        if not images:
            return
        rows = self.predict(np.stack(images).astype(np.float32) / np.float32(255))
        for file, row in zip(readable, rows, strict=True):
            best = int(row.argmax())
            yield Prediction(file, self.class_names[best], float(row[best]), tuple(map(float, row)))


def _class_names(runtime: Runtime) -> tuple[str, ...]:
    try:
        names = json.loads(runtime.metadata.get("class_names", ""))
    except json.JSONDecodeError:
        names = None
    if not isinstance(names, list) or len(names) != runtime.classes:
        raise BadInput(
            f"the metadata of {runtime.path} doesn't name its {runtime.classes} classes:"
            " export it with class_names, a JSON list"
        )
    return tuple(map(str, names))


def _image_files(paths: list[Path]) -> list[Path]:
    """Return the files among the paths, and those below the folders among them."""
    missing = [printable(path) for path in paths if not _exists(path)]
    if missing:
        more = f" and {len(missing) - decoding.LISTED:,} more" if len(missing) > decoding.LISTED else ""
        raise BadInput(f"there is no {', no '.join(missing[: decoding.LISTED])}{more}: name images or folders of them")
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        listing = image_files.find(path)
        if not listing.files:
            left_out = f" (left out: {image_files.told(listing.left_out.values())})" if listing.left_out else ""
            raise BadInput(f"folder {printable(path)} holds no images{left_out}: name another")
        if sentence := listing.told():
            logging.getLogger("generalist").warning("%s", sentence)
        files += listing.files
    return files


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # no permission, or no name of a file
        return False
