"""Does the exported file say what the classifier says?"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, computed_field

from generalist import engine
from generalist.export.graph import Deployed
from generalist.export.runtime import TILE, Float32, Runtime, Where
from generalist.models import Classifier
from generalist.records import Record
from generalist.tensors import Images, to_unit


class Parity(Record):
    """torch and ONNX Runtime compared on the same images.

    Attributes:
        n: images compared, clean and adversarial; of a conditional model, once for each condition.
        max_difference: largest absolute difference of a logit.
        largest_logit: largest absolute logit, by torch.
        disagreements: images with different predictions, or with a logit that is not finite.
        tolerance: largest difference allowed, relative to the largest logit (at least 1).
        provider: of ONNX Runtime's side, by its name.
        widths: of a slimmable model, the same for the file of each further width.
    """

    n: int
    max_difference: float
    largest_logit: float
    disagreements: int
    tolerance: float
    provider: str = "CPUExecutionProvider"
    widths: dict[str, "Parity"] = Field({}, exclude_if=lambda widths: not widths)

    @computed_field  # type: ignore[prop-decorator]  # as pydantic's documentation says
    @property
    def passed(self) -> bool:
        """Whether every prediction is the same and every logit is close enough, at each width."""
        allowed = self.tolerance * max(1.0, self.largest_logit)
        own = self.disagreements == 0 and self.max_difference <= allowed
        return own and all(other.passed for other in self.widths.values())


def check_parity(
    model: Classifier,
    path: Path,
    images: NDArray[np.uint8],
    adversarial: Float32 | Images,
    *,
    conditions: Sequence[float] = (),
    tolerance: float,
    on: Where = "cpu",
) -> Parity:
    """Compare the deployed rule of `model` with an exported file on clean and adversarial images.

    Args:
        model: on any device; it is left as it was.
        path: the ONNX file.
        images: uint8 [n, channels, height, width].
        adversarial: float32 [m, channels, height, width] in [0, 1], array or tensor on the CPU; m need not be n.
        conditions: values of lambda at which a conditional model is compared, each with all images.
        tolerance: see `Parity`.
        on: where ONNX Runtime computes.

    Raises:
        BadInput: ONNX Runtime has no such device here; the file is missing or changed, or takes images of another
            shape.
        ValueError: there are no images to compare.
    """
    if not len(images) + len(adversarial):
        raise ValueError("parity needs at least one image")
    rule, pairs = Deployed(model), []
    for condition in conditions or (None,):
        runtime = Runtime(path, on=on, condition=condition)
        pairs += [(_by_torch(rule, tile, condition), runtime(tile.numpy())) for tile in _tiles(images, adversarial)]
    expected, actual = (np.concatenate(side) for side in zip(*pairs, strict=True))
    finite = np.isfinite(expected).all(axis=1) & np.isfinite(actual).all(axis=1)
    agree = finite & (expected.argmax(axis=1) == actual.argmax(axis=1))
    return Parity(
        n=len(expected),
        max_difference=float(np.abs(expected - actual)[finite].max(initial=0.0)),
        largest_logit=float(np.abs(expected)[finite].max(initial=0.0)),
        disagreements=int((~agree).sum()),
        tolerance=tolerance,
        provider=runtime.provider,
    )


def _tiles(images: NDArray[np.uint8], adversarial: Float32 | Images) -> Iterator[Images]:
    """Yield both as float32 on the CPU; torch.tensor copies, so the arrays may be read-only or mapped from disk."""
    for start in range(0, len(images), TILE):
        yield to_unit(torch.tensor(images[start : start + TILE]))
    for start in range(0, len(adversarial), TILE):
        yield torch.tensor(np.asarray(adversarial[start : start + TILE]))


def _by_torch(rule: Deployed, images: Images, condition: float | None) -> Float32:
    on = rule.model.mean.device
    given = () if condition is None else (torch.full((len(images),), condition, device=on),)
    with torch.no_grad(), engine.arithmetic(on):
        logits: Float32 = rule(images.to(on), *given).cpu().numpy()
    return logits
