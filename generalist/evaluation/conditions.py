"""A conditional model at one condition is a plain classifier: attacks, verdicts and gates know no conditions."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import Tensor

from generalist.config import EvaluationOptions
from generalist.models import DECISION, Classifier, Encoded
from generalist.records import AT, base_name
from generalist.tensors import Features, Images, Logits, PerImage


class AtCondition(Classifier):
    """A conditional network at one lambda.

    Verdicts are by the decision at this lambda; attacks go through the head's views at this lambda, and through the
    decision at others where these are given, as examples against one lambda may fool the network at another.
    """

    def __init__(self, network: Classifier, condition: float, others: Sequence[float] = ()) -> None:
        super().__init__(network.shape, network.head)
        self.network, self.condition, self._others = network, float(condition), tuple(map(float, others))
        self.mean, self.std = network.mean, network.std  # on its device

    def embed(self, normalised: Images, given: Encoded | None = None) -> Features:
        """Return penultimate features at this condition."""
        assert self.network.encoding is not None  # it is conditional
        return self.network.embed(normalised, self.network.encoding(_filled(normalised, self.condition)))

    def raw_outputs(self, features: Features) -> Tensor:
        return self.network.raw_outputs(features)

    def views(self) -> dict[str, Callable[..., Logits]]:
        """Return the views of the head at this condition, and the decision at the others."""
        decision = self.network.views()[DECISION]
        others = {f"lambda {other:g}": partial(_seen_at, decision, other) for other in self._others}
        return super().views() | others


def learner_names(names: Iterable[str], options: EvaluationOptions) -> list[str]:
    """Return the names of all that is evaluated: learners, and conditional ones again at each further condition."""
    further = [f"{AT}{condition:g}" for condition in options.conditions[1:]]
    return [f"{name}{at}" for name in names for at in ("", *further)]


def condition_of(name: str, options: EvaluationOptions) -> float | None:
    """Return lambda of a learner by its name: the headline's where it names none; None for a plain network's."""
    if not options.conditions:
        return None
    at = name.removeprefix(base_name(name)).removeprefix(AT)
    return next(float(condition) for condition in options.conditions if at in {"", f"{condition:g}"})


def as_evaluated(network: Classifier, options: EvaluationOptions, name: str = "") -> Classifier:
    """Return what is evaluated of a network under a name of `learner_names`, by default at the headline's condition."""
    condition = condition_of(name, options)
    if condition is None:
        return network
    others = [other for other in options.conditions if other != condition] if options.transfers else []
    return AtCondition(network, condition, others)


def _filled(images: Images, condition: float) -> PerImage:
    return torch.full((len(images),), condition, device=images.device)


def _seen_at(decision: Callable[..., Logits], condition: float, images: Images) -> Logits:
    return decision(images, _filled(images, condition))
