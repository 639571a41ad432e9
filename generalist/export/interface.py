"""Sessions of ONNX Runtime, and what their models take and give. No torch here."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as runtime_errors

from generalist.errors import BadInput
from generalist.export.integrity import first_line

Where = Literal["cpu", "cuda"]
_PROVIDERS: dict[Where, tuple[str, dict[str, str]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),  # which it would use, and parity is float32's
}
REFUSALS: tuple[type[Exception], ...] = (
    *(kind for kind in vars(runtime_errors).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    MemoryError,
    RuntimeError,
    ValueError,
)
"""How ONNX Runtime says that it can't."""

_FLOATS: dict[str, type[np.floating[Any]]] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
}
_LARGEST = 2**28  # numbers in one batch: 1 GiB of float32
LAMBDA = "lambda"
"""The second input of a conditional model of ours: a condition in [0, 1] for each image."""
_EXPECTED = "images float32 ['batch', channels, height, width] and logits float32 ['batch', classes]"


@dataclass(frozen=True)
class Interface:
    """What a model takes and gives.

    Attributes:
        names: of its input and its output.
        channels, height, width: of one image.
        classes: number of logits; None where the file doesn't tell.
        batch: the one number of images that it takes, None for any.
        dtype: of its images.
        conditional: whether it takes lambda, too.
    """

    names: tuple[str, str]
    channels: int
    height: int
    width: int
    classes: int | None
    batch: int | None = None
    dtype: type[np.floating[Any]] = np.float32
    conditional: bool = False

    def feed(self, images: NDArray[Any], condition: float | None) -> dict[str, NDArray[Any]]:
        """Return what a session is given for a batch, all of it at one condition."""
        given = {self.names[0]: images.astype(self.dtype, copy=False)}
        return given | ({LAMBDA: np.full(len(images), condition, dtype=np.float32)} if self.conditional else {})

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image."""
        return self.channels, self.height, self.width


def session(content: bytes, path: Path, threads: int, on: Where) -> Any:
    """Return a session of a model's bytes, without external data.

    Raises:
        BadInput: ONNX Runtime can't run it, or has no such device here.
    """
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
        made = onnxruntime.InferenceSession(content, options, providers=[provider])
    except REFUSALS as error:
        raise BadInput(
            f"{path} can't be run by ONNX Runtime {onnxruntime.__version__} ({first_line(error)}): export it again with"
            " operators that it knows"
        ) from None
    if made.get_providers()[0] != provider[0]:  # it goes to the CPU by itself where a GPU's libraries don't load
        raise BadInput(
            f"ONNX Runtime has {provider[0]} but can't use it, as where CUDA's or cuDNN's libraries are missing: mend"
            " that, or use the CPU"
        )
    return made


def of_ours(made: Any, path: Path) -> Interface:
    """Return the interface of a file that was exported here.

    Raises:
        BadInput: it has another one.
    """
    (inputs, conditional), outputs = _inputs(made), made.get_outputs()
    if len(inputs) == len(outputs) == 1 and (inputs[0].name, outputs[0].name) == ("images", "logits"):
        sizes = [*inputs[0].shape[1:], *outputs[0].shape[1:]]
        free = not isinstance(inputs[0].shape[0], int)
        floats = inputs[0].type == outputs[0].type == "tensor(float)"
        if free and floats and len(sizes) == 4 and all(isinstance(size, int) for size in sizes):
            channels, height, width, classes = sizes
            return Interface(("images", "logits"), channels, height, width, classes, conditional=conditional)
    described = _described((*made.get_inputs(), *outputs))
    raise BadInput(f"{path} is no image classifier of ours: it has {described}, expected {_EXPECTED}")


def of_others(made: Any, path: Path, shape: tuple[int, int, int] | None) -> Interface:
    """Return the interface of a classifier from anywhere: with any names, any one batch, any floating type.

    Args:
        made: its session.
        path: its file.
        shape: [channels, height, width] of the images, for those of these sizes that the file leaves open.

    Raises:
        BadInput: it does not take one tensor of images and give one of logits, or a size is 0 or huge.
    """
    (inputs, conditional), outputs = _inputs(made), made.get_outputs()
    described = _described((*made.get_inputs(), *outputs))
    if len(inputs) != 1 or len(outputs) != 1 or {inputs[0].type, outputs[0].type} - _FLOATS.keys():
        raise BadInput(
            f"{path} is no image classifier: it has {described}, expected one input and one output, {_EXPECTED}"
        )
    taken, given = list(inputs[0].shape), list(outputs[0].shape) or ["batch", "classes"]  # [] is an unknown rank
    if len(taken) != 4 or len(given) != 2:
        raise BadInput(f"{path} is no image classifier: it has {described}, expected {_EXPECTED}")
    batch, *sizes = (size if isinstance(size, int) else None for size in taken)
    filled = [size if size is not None else known for size, known in zip(sizes, shape or (None,) * 3, strict=True)]
    classes = given[1] if isinstance(given[1], int) else None
    numbers = [size for size in (batch, *filled, classes) if size is not None]
    if min(numbers, default=1) < 1 or np.prod([float(size) for size in numbers]) > _LARGEST:
        raise BadInput(f"{path} has images or logits of no size or of a huge one, {described}: export it again")
    if None in filled:
        raise BadInput(f"{path} leaves the size of its images open, {described}: export it for one size")
    channels, height, width = (int(size) for size in filled if size is not None)
    names = inputs[0].name, outputs[0].name
    return Interface(names, channels, height, width, classes, batch, _FLOATS[inputs[0].type], conditional)


def _inputs(made: Any) -> tuple[list[Any], bool]:
    """Return a model's inputs without lambda, and whether it takes that: float32 ['batch']."""
    inputs = list(made.get_inputs())
    conditions = [one for one in inputs if one.name == LAMBDA and len(one.shape) == 1 and one.type == "tensor(float)"]
    if len(inputs) == 2 and len(conditions) == 1:
        return [one for one in inputs if one.name != LAMBDA], True
    return inputs, False


def checked_condition(path: Path, conditional: bool, condition: float | None, usual: str | None = None) -> float | None:
    """Return the condition at which a model is asked: what is wanted, or what its metadata says.

    Raises:
        BadInput: it is outside [0, 1], or missing, or the model takes none.
    """
    if condition is not None and not conditional:
        raise BadInput(f"{path} takes no lambda, as its network is not conditional: leave --lambda out")
    if condition is None and conditional:
        with suppress(TypeError, ValueError):
            condition = float(usual)  # type: ignore[arg-type]  # None is a TypeError
        if condition is None:
            raise BadInput(f"{path} takes lambda in [0, 1], 0 for natural and 1 for robust accuracy: give --lambda")
    if condition is not None and not 0 <= condition <= 1:
        raise BadInput(f"lambda is {condition:g}, but it must lie in [0, 1]: 0 for natural, 1 for robust accuracy")
    return condition


def _described(parts: Sequence[Any]) -> str:
    description = ", ".join(f"{part.name} {part.type} {part.shape}" for part in parts[:6])
    more = f" and {len(parts) - 6} more" if len(parts) > 6 else ""
    return first_line(ValueError(" ".join(description.split()))) + more
