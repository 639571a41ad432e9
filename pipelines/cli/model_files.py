"""What `generalist attack` attacks: weights of ours, or an ONNX file from anywhere."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generalist.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from generalist.models import Classifier


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
    width: float | None,
) -> Target:
    """Return the model of a file, for images of that shape; `condition` is lambda of one that takes it.

    `width` is one of those of slimmable weights, by default the whole.

    Raises:
        BadInput: it can't be read or run, takes other images, or the options are for a file of the other kind.
    """
    if path.suffix.lower() == ".onnx":
        if width is not None:
            raise BadInput(
                f"{path} is of one width, as each ONNX file is: leave --width out, or name another width's file"
            )
        return _onnx(path, on, threads, shape, mean, std, condition)
    from generalist.evaluation import AtPoint
    from generalist.export import read_classifier
    from generalist.export.interface import checked_condition
    from generalist.records import Point
    from generalist.untrusted import file_sha256

    classifier = read_classifier(path, on=on)
    if mean is not None or std is not None:
        raise BadInput(f"{path} normalises images itself: leave --mean and --std out")
    _check_shape(path, (classifier.shape.channels, classifier.shape.height, classifier.shape.width), shape)
    condition = checked_condition(path, classifier.encoding is not None, condition)
    point = Point(condition, _checked_width(path, classifier, width))
    if point != Point():
        classifier = AtPoint(classifier, point)
    return Target(classifier, file_sha256(path), facts=_told(*point))


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


def _checked_width(path: Path, classifier: "Classifier", width: float | None) -> float | None:
    """Return the width at which weights are attacked; None where they have one alone."""
    from generalist.models import widths_of

    widths = widths_of(classifier)
    if width is not None and width not in widths:
        had = ", ".join(f"{own:g}" for own in widths)
        raise BadInput(
            f"{path} was not trained at width {width:g}, but at widths {had}: give --width one of these, or none"
        )
    return (width or 1.0) if len(widths) > 1 else None


def _told(condition: float | None, width: float | None = None) -> dict[str, str]:
    given = {"lambda": condition, "width": width}
    return {name: f"{value:g}" for name, value in given.items() if value is not None}


def _check_shape(path: Path, expected: tuple[int, ...], data_shape: tuple[int, ...]) -> None:
    if expected == data_shape:
        return
    if expected == (*data_shape[1:], data_shape[0]):
        raise BadInput(
            f"{path} takes images {list(expected)}, channels last, the data has {list(data_shape)}: export it with"
            " channels first"
        )
    raise BadInput(f"{path} takes images {list(expected)}, the data has {list(data_shape)}: name the data it is for")
