"""Running an intact ONNX file of ours. No torch here."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as runtime_errors

from generalist.errors import BadInput
from generalist.export.seal import Parts, intact, valid

Float32 = NDArray[np.float32]

TILE = 256  # images at a time: bounds memory
Where = Literal["cpu", "cuda"]
_PROVIDERS: dict[Where, tuple[str, dict[str, str]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),  # which it would use, and parity is float32's
}
_REFUSALS = (
    runtime_errors.Fail,
    runtime_errors.InvalidArgument,
    runtime_errors.InvalidGraph,
    runtime_errors.NotImplemented,
)


class Runtime:
    """An exported model in ONNX Runtime.

    Attributes:
        metadata: the file's.
        provider: the execution provider that computes, by ONNX Runtime's name.
        channels, height, width: of one image.
        classes: number of logits.
    """

    def __init__(self, path: Path, *, threads: int = 1, foreign: bool = False, on: Where = "cpu") -> None:
        """Check the file's seals and load it.

        Args:
            path: the ONNX file.
            threads: intra-op threads; their number may change the last bits of a logit.
            foreign: take files without seals, too, and whatever their input and output are called.
            on: the device; a GPU is taken only where it is asked for.

        Raises:
            BadInput: the file is missing or changed, or is not a model of images to logits; or ONNX Runtime has no
                such device here.
        """
        parts = valid(path) if foreign else intact(path)
        self.path, self.metadata = path, parts.metadata
        self._session = _session(parts, path, threads, on)
        self.provider = str(self._session.get_providers()[0])
        self.channels, self.height, self.width, self.classes = _interface(self._session, path, any_names=foreign)
        self._names = self._session.get_inputs()[0].name, self._session.get_outputs()[0].name

    def __call__(self, images: Float32) -> Float32:
        """Logits float32 [n, classes] of images float32 [n, channels, height, width] in [0, 1].

        Raises:
            BadInput: the images have another shape or type than the model takes.
        """
        expected = (self.channels, self.height, self.width)
        if images.ndim != 4 or images.shape[1:] != expected or images.dtype != np.float32:
            raise BadInput(
                f"{self.path} takes images float32 {['n', *expected]}, found {images.dtype} {list(images.shape)}:"
                " convert them, or export a model for this shape"
            )
        logits = np.empty((len(images), self.classes), dtype=np.float32)
        for start in range(0, len(images), TILE):
            tile = np.ascontiguousarray(images[start : start + TILE])
            (logits[start : start + TILE],) = self._session.run([self._names[1]], {self._names[0]: tile})
        return logits


def _session(parts: Parts, path: Path, threads: int, on: Where) -> Any:
    provider = _PROVIDERS[on]
    if provider[0] not in onnxruntime.get_available_providers():
        raise BadInput(
            f"ONNX Runtime {onnxruntime.__version__} has no {provider[0]} here: install onnxruntime-gpu in place of"
            " onnxruntime, or use the CPU"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # its errors come as exceptions, too
    try:
        session = onnxruntime.InferenceSession(parts.content, options, providers=[provider])
    except _REFUSALS as error:
        reason = str(error).strip().splitlines()[0]
        raise BadInput(f"{path} can't be run by ONNX Runtime {onnxruntime.__version__} ({reason})") from None
    if session.get_providers()[0] != provider[0]:  # it goes to the CPU by itself where a GPU's libraries don't load
        raise BadInput(
            f"ONNX Runtime has {provider[0]} but can't use it, as where CUDA's or cuDNN's libraries are missing: mend"
            " that, or use the CPU"
        )
    return session


def _interface(session: Any, path: Path, *, any_names: bool) -> tuple[int, int, int, int]:
    """Channels, height, width and classes of a model of images to logits."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    described = ", ".join(f"{part.name} {part.type} {part.shape}" for part in (*inputs, *outputs))
    one = len(inputs) == len(outputs) == 1
    if one and (any_names or (inputs[0].name, outputs[0].name) == ("images", "logits")):
        sizes = [*inputs[0].shape[1:], *outputs[0].shape[1:]]
        free = not isinstance(inputs[0].shape[0], int)
        floats = inputs[0].type == outputs[0].type == "tensor(float)"
        if free and floats and len(sizes) == 4 and all(isinstance(size, int) for size in sizes):
            channels, height, width, classes = sizes
            return channels, height, width, classes
    raise BadInput(
        f"{path} is no image classifier of ours: it has {described}, expected images float32"
        " ['batch', channels, height, width] and logits float32 ['batch', classes]"
    )
