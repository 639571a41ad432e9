"""What `generalist attack` attacks: weights of ours, or an ONNX file from anywhere."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generalist.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Target:
    """A model to attack.

    Attributes:
        network: what is asked for logits.
        digest: SHA-256 (hex) of its file, or of its files.
        box: whether it is a black box, without gradients.
        facts: what else decides its verdicts, by name.
        doubt: what to warn of, given images and labels.
    """

    network: Any
    digest: str
    box: bool = False
    facts: dict[str, str] = field(default_factory=dict)
    doubt: "Callable[[NDArray[np.float32], NDArray[np.int64]], str | None]" = lambda _images, _labels: None


def open_target(
    path: Path,
    on: Any,
    threads: int,
    shape: tuple[int, ...],
    mean: str | None,
    std: str | None,
    condition: float | None,
) -> Target:
    """Return the model of a file, for images of that shape; `condition` is lambda of one that takes it.

    Raises:
        BadInput: it can't be read or run, takes other images, or the options are for a file of the other kind.
    """
    if path.suffix.lower() == ".onnx":
        return _onnx(path, on, threads, shape, mean, std, condition)
    from generalist.evaluation import AtCondition
    from generalist.export import read_classifier
    from generalist.export.interface import checked_condition
    from generalist.untrusted import file_sha256

    classifier = read_classifier(path, on=on)
    if mean is not None or std is not None:
        raise BadInput(f"{path} normalises images itself: leave --mean and --std out")
    _check_shape(path, (classifier.shape.channels, classifier.shape.height, classifier.shape.width), shape)
    condition = checked_condition(path, classifier.encoding is not None, condition)
    if condition is not None:
        classifier = AtCondition(classifier, condition)
    return Target(classifier, file_sha256(path), facts=_told(condition))


def _onnx(
    path: Path,
    on: Any,
    threads: int,
    shape: tuple[int, ...],
    mean: str | None,
    std: str | None,
    condition: float | None,
) -> Target:
    import torch

    from generalist.export.normalisation import NONE, Normalisation, doubt
    from generalist.export.runtime import Runtime

    if on.type != "cpu":
        raise BadInput(f"{path} runs on the CPU: leave --device out")
    channels, height, width = shape
    normalised = Normalisation.parse(mean, std, channels)
    runtime = Runtime(path, threads=threads, foreign=True, shape=(channels, height, width), condition=condition)
    _check_shape(path, (runtime.channels, runtime.height, runtime.width), shape)
    return Target(
        lambda points: torch.from_numpy(runtime(normalised(points.detach().numpy()))),
        runtime.digest,
        box=True,
        facts={**({} if normalised == NONE else {"normalisation": str(normalised)}), **_told(runtime.condition)},
        doubt=lambda images, labels: doubt(runtime, normalised, images, labels),
    )


def _told(condition: float | None) -> dict[str, str]:
    return {} if condition is None else {"lambda": f"{condition:g}"}


def _check_shape(path: Path, expected: tuple[int, ...], data_shape: tuple[int, ...]) -> None:
    if expected == data_shape:
        return
    if expected == (*data_shape[1:], data_shape[0]):
        raise BadInput(
            f"{path} takes images {list(expected)}, channels last, the data has {list(data_shape)}: export it with"
            " channels first"
        )
    raise BadInput(f"{path} takes images {list(expected)}, the data has {list(data_shape)}: name the data it is for")
