"""Class names and probabilities for images, by an exported model. No torch here: it answers at once."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from generalist.errors import BadInput
from generalist.export.runtime import Float32, Runtime, Where

_MODES = {1: "L", 3: "RGB"}
_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


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


class Predictor:
    """An exported model that is asked for probabilities.

    Attributes:
        class_names: by class index.
        provider: the execution provider that computes, by ONNX Runtime's name.
    """

    def __init__(self, path: Path, *, threads: int = 1, on: Where = "cpu") -> None:
        """Check the file's seals and load it.

        Raises:
            BadInput: the file is missing or changed, or is not a model of images to the logits of named classes; or
                ONNX Runtime has no such device here.
        """
        self._runtime = Runtime(path, threads=threads, on=on)
        self.provider = self._runtime.provider
        self.class_names = _class_names(self._runtime)

    def predict(self, images: Float32) -> Float32:
        """Probabilities float32 [n, classes] of images float32 [n, channels, height, width] in [0, 1].

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

    def predict_files(self, paths: Iterable[Path]) -> list[Prediction]:
        """Predictions for image files, and for all image files below folders in the order of their names.

        Images are turned as their camera says, converted to the model's channels, and resized to its height and
        width (bilinear, antialiased).

        Raises:
            BadInput: a file or folder is missing, a folder has no images, or an image can't be read.
        """
        files = [file for path in paths for file in _image_files(path)]
        if not files:
            return []
        images = np.stack([self._decoded(file) for file in files]).astype(np.float32) / np.float32(255)
        results = []
        for file, row in zip(files, self.predict(images), strict=True):
            best = int(row.argmax())
            results.append(Prediction(file, self.class_names[best], float(row[best]), tuple(map(float, row))))
        return results

    def _decoded(self, file: Path) -> NDArray[np.uint8]:
        """One image as training images are decoded by `data.decoding`, which needs torch: uint8 [C, H, W]."""
        runtime = self._runtime
        if runtime.channels not in _MODES:
            raise BadInput(f"{runtime.path} takes {runtime.channels} channels, and image files have 1 or 3: use arrays")
        try:
            with Image.open(file) as image:
                deep = image.mode.startswith(("I", "F"))
                pixels = ImageOps.exif_transpose(image).convert(_MODES[runtime.channels])
        except OSError as error:
            raise BadInput(
                f"{file} can't be read as an image ({error.strerror or error}): replace or omit it"
            ) from None
        except Exception as error:  # noqa: BLE001  damaged bytes make Pillow's decoders raise almost anything
            raise BadInput(f"{file} can't be read as an image ({error}): replace or omit it") from None
        if deep:
            raise BadInput(f"{file} has more than 8 bits a channel, which would be cut off: convert it to 8 bits")
        pixels = pixels.resize((runtime.width, runtime.height), Image.Resampling.BILINEAR)  # PIL's is antialiased
        return np.asarray(pixels, dtype=np.uint8).reshape(runtime.height, runtime.width, -1).transpose(2, 0, 1)


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


def _image_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in _SUFFIXES and not file.name.startswith(".") and file.is_file()
    )
    if not files:
        raise BadInput(f"folder {path} holds no images ({', '.join(sorted(_SUFFIXES))}): name another")
    return files
