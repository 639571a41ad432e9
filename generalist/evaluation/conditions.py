"""A model at one condition and one width is a plain classifier: attacks, verdicts and gates know of neither."""

from collections.abc import Callable, Iterable, Sequence
from itertools import product

import torch
from torch import Tensor, nn

from generalist.config import EvaluationOptions
from generalist.models import DECISION, Classifier, Encoded, at_width
from generalist.records import AT, Point, base_name
from generalist.tensors import Features, Images, Logits


class AtPoint(Classifier):
    """A network at one lambda, one width, or both.

    Verdicts are by the decision there; attacks go through the head's views there, and through the decision at others
    where these are given, as examples against one may fool the network at another.
    """

    def __init__(self, network: Classifier, point: Point, others: Sequence[Point] = ()) -> None:
        super().__init__(network.shape, network.head)
        self.network = network if point.width is None else at_width(network, point.width)
        self.point = point
        self.others = nn.ModuleList(AtPoint(network, other) for other in others)
        self.mean, self.std = network.mean, network.std  # on its device

    def embed(self, normalised: Images, given: Encoded | None = None) -> Features:
        """Return penultimate features at this condition and width."""
        encoding, condition = self.network.encoding, self.point.condition
        if condition is None or encoding is None:
            return self.network.embed(normalised)
        return self.network.embed(
            normalised, encoding(torch.full((len(normalised),), condition, device=normalised.device))
        )

    def raw_outputs(self, features: Features) -> Tensor:
        return self.network.raw_outputs(features)

    def views(self) -> dict[str, Callable[..., Logits]]:
        """Return the views of the head here, and the decision at the others."""
        others = {str(other.point): other.views()[DECISION] for other in self.others if isinstance(other, AtPoint)}
        return super().views() | others


def points(options: EvaluationOptions) -> list[Point]:
    """Return the grid of conditions and widths that is evaluated, the headline first."""
    conditions, widths = (map(float, own) if own else [None] for own in (options.conditions, options.widths))
    return [Point(condition, width) for condition, width in product(conditions, widths)]


def learner_names(names: Iterable[str], options: EvaluationOptions) -> list[str]:
    """Return the names of all that is evaluated: learners, and the same again at each further point of the grid."""
    further = [f"{AT}{point}" for point in points(options)[1:]]
    return [f"{name}{at}" for name in names for at in ("", *further)]


def point_of(name: str, options: EvaluationOptions) -> Point:
    """Return where a learner is evaluated, by its name: the headline's point where it names none."""
    at = name.removeprefix(base_name(name)).removeprefix(AT)
    return next(point for point in points(options) if at in {"", str(point)})


def as_evaluated(network: Classifier, options: EvaluationOptions, name: str = "") -> Classifier:
    """Return what is evaluated of a network under a name of `learner_names`, by default at the headline's point."""
    point = point_of(name, options)
    if point == Point():
        return network
    others = [other for other in points(options) if other != point] if options.transfers else []
    return AtPoint(network, point, others)
