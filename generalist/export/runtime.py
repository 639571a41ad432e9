"""Running an ONNX file: an intact one of ours, or a classifier from anywhere. No torch here."""

import dataclasses
import threading
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from generalist.errors import BadInput
from generalist.export.integrity import first_line, from_anywhere, intact
from generalist.export.interface import REFUSALS, checked_condition, of_others, of_ours, session
from generalist.export.interface import Where as Where
from generalist.export.probe import probe_model

Float32 = NDArray[np.float32]

TILE = 256  # images at a time: bounds memory
LIMIT = 60.0
"""Seconds for the first images of a foreign model."""
_PATIENCE = 20  # times as long as its first images took, for images of a foreign model


class Runtime:
    """An exported model in ONNX Runtime.

    Attributes:
        path: the file.
        metadata: the file's.
        digest: SHA-256 (hex) of the file, and of those in which its weights lie where these are others.
        provider: the execution provider that computes, by ONNX Runtime's name.
        channels, height, width: of one image.
        classes: number of logits.
        condition: lambda of all images; None for a model that takes none.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int = 1,
        foreign: bool = False,
        on: Where = "cpu",
        shape: tuple[int, int, int] | None = None,
        limit: float = LIMIT,
        condition: float | None = None,
    ) -> None:
        """Check the file's seals and load it.

        Args:
            path: the ONNX file.
            threads: intra-op threads; their number may change the last bits of a logit.
            foreign: take files without seals, too, with weights in other files beside them, whatever their input and
                output are called, and for whatever number of images. Such a file is first tried in a process of its
                own.
            on: the device; a GPU is taken only where it is asked for.
            shape: [channels, height, width], for those of these sizes that a foreign file leaves open.
            limit: seconds for the first images of a foreign file.
            condition: lambda of all images, for a model that takes one; by default that of its metadata.

        Raises:
            BadInput: the file is missing or changed, or is not a model of images to logits; or ONNX Runtime has no
                such device here; or a foreign file does not answer in time; or it takes no such condition.
        """
        self.path = path
        self._limit = self._patience = 0.0  # none
        if foreign:
            parts = from_anywhere(path)
            trial = probe_model(parts.content, path, threads, shape, limit)
            self._limit, self._patience = limit, _PATIENCE * trial.seconds
            self._session = session(parts.content, path, threads, on)
            self._interface = dataclasses.replace(of_others(self._session, path, shape), classes=trial.classes)
            self.classes = trial.classes
        else:
            parts = intact(path)
            self._session = session(parts.content, path, threads, on)
            self._interface = of_ours(self._session, path)
            assert self._interface.classes is not None
            self.classes = self._interface.classes
        self.metadata, self.digest = parts.metadata, parts.digest
        self.condition = checked_condition(path, self._interface.conditional, condition, self.metadata.get("condition"))
        self.provider = str(self._session.get_providers()[0])
        self.channels, self.height, self.width = self._interface.shape

    def __call__(self, images: Float32) -> Float32:
        """Return the logits float32 [n, classes] of images float32 [n, channels, height, width] in [0, 1].

        A model that takes one number of images is asked in batches of so many, the last filled with copies.

        Raises:
            BadInput: the images have another shape or type than the model takes; or a foreign model fails, takes
                too long, gives other logits than it says or some that are not finite.
        """
        expected = self._interface.shape
        if images.ndim != 4 or images.shape[1:] != expected or images.dtype != np.float32:
            raise BadInput(
                f"{self.path} takes images float32 {['n', *expected]}, found {images.dtype} {list(images.shape)}:"
                " convert them, or export a model for this shape"
            )
        logits = np.empty((len(images), self.classes), dtype=np.float32)
        size = self._interface.batch or TILE
        for start in range(0, len(images), size):
            tile = np.ascontiguousarray(images[start : start + size])
            missing = (self._interface.batch or len(tile)) - len(tile)
            filled = np.concatenate([tile, np.repeat(tile[-1:], missing, axis=0)]) if missing else tile
            logits[start : start + size] = self._answer(filled)[: len(tile)]
        return logits

    def _answer(self, tile: Float32) -> Float32:
        names, feed = self._interface.names, self._interface.feed(tile, self.condition)
        if not self._limit:
            answer: Float32 = self._session.run([names[1]], feed)[0]
            return answer
        seconds = max(self._limit, self._patience * len(tile))
        options = onnxruntime.RunOptions()
        options.log_severity_level = 4
        end = threading.Timer(seconds, setattr, (options, "terminate", True))
        end.daemon = True
        end.start()
        try:
            (answer,) = self._session.run([names[1]], feed, options)
        except REFUSALS as error:
            why = f"no answer in {seconds:.0f} s" if options.terminate else first_line(error)
            raise BadInput(f"{self.path} fails on {len(tile)} images ({why}): export it again") from None
        finally:
            end.cancel()
        return self._sound(np.asarray(answer), len(tile))

    def _sound(self, answer: NDArray[np.floating], count: int) -> Float32:
        """Return the logits of a foreign model, in float32."""
        if answer.shape != (count, self.classes):
            raise BadInput(
                f"{self.path} gives logits {list(answer.shape)} for {count} images, expected {[count, self.classes]}:"
                " export it with one row for each image"
            )
        with np.errstate(over="ignore"):
            logits: Float32 = answer.astype(np.float32)
        if not np.isfinite(logits).all():
            raise BadInput(
                f"{self.path} gives logits that are not finite, {logits[~np.isfinite(logits)][0]} among them: export a"
                " model whose logits are numbers, and check its normalisation"
            )
        return logits
