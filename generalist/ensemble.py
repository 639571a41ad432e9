"""Several networks of one architecture as one classifier: the mean of their probabilities.

It is attacked, evaluated and exported like any other. Its weights are those of its members under `members.0.` and so
on, by which it is known.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generalist.config import ModelOptions
from generalist.models import DECISION, Classifier, Encoded, Head, LossView, build
from generalist.tensors import Features, Images, ImageShape, Labels, Logits, PerImage, Weights

_KEY = re.compile(r"members\.(\d+)\.(.+)")


def joined(members: Sequence[Weights]) -> Weights:
    """Return the weights of an ensemble of networks, given theirs."""
    return {f"members.{index}.{name}": tensor for index, part in enumerate(members) for name, tensor in part.items()}


def parts(weights: Mapping[str, Tensor]) -> list[Weights]:
    """Return the weights of each member of an ensemble; of a single network, its own."""
    found: dict[int, Weights] = {}
    for key, tensor in weights.items():
        match = _KEY.fullmatch(key)
        if match is None:
            return [dict(weights)]
        found.setdefault(int(match[1]), {})[match[2]] = tensor
    return [found[index] for index in sorted(found)]


def build_for(options: ModelOptions, shape: ImageShape, names: Iterable[str]) -> Classifier:
    """Return a network without weights, see `build`: an ensemble of them where the names of weights are one's.

    Raises:
        BadInput: like `build`.
    """
    matches = [_KEY.fullmatch(name) for name in names]
    members = {match[1] for match in matches if match is not None}
    return Ensemble([build(options, shape) for _ in members]) if members else build(options, shape)


@dataclass(frozen=True)
class _MeanOfProbabilities(Head):
    """Of raw outputs that are those of all members, one after the other."""

    member: Head
    count: int

    @property
    def outputs(self) -> int:
        return self.count * self.member.outputs

    def decision(self, raw: Tensor) -> Logits:
        """Return the logarithm of the mean of the members' probabilities."""
        said = [F.log_softmax(self.member.decision(part), dim=1) for part in self._split(raw)]
        return torch.stack(said).logsumexp(dim=0) - math.log(self.count)

    def views(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Return the decision, the mean of the members' logits, and that of each further view of their head."""
        views = {"logits" if name == DECISION else name: self._mean(view) for name, view in self.member.views().items()}
        return {DECISION: self.decision, **views}

    def nonadaptive(self) -> dict[str, Callable[[Tensor], Tensor]]:
        return {name: self._mean(view) for name, view in self.member.nonadaptive().items()}

    def _mean(self, view: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        if isinstance(view, LossView):
            return LossView(_raw, partial(self._mean_loss, view))
        return lambda raw: torch.stack([view(part) for part in self._split(raw)]).mean(dim=0)

    def _mean_loss(self, view: LossView, raw: Tensor, labels: Labels, *targets: Labels) -> PerImage:
        return torch.stack([view.loss(view(part), labels, *targets) for part in self._split(raw)]).mean(dim=0)

    def _split(self, raw: Tensor) -> Sequence[Tensor]:
        return raw.chunk(self.count, dim=1)


class Ensemble(Classifier):
    """The mean of the probabilities of networks that take the same images, and no condition."""

    def __init__(self, members: Sequence[Classifier]) -> None:
        first = members[0]
        super().__init__(first.shape, _MeanOfProbabilities(first.shape.classes, first.head, len(members)))
        self.members = nn.ModuleList(members)

    def embed(self, normalised: Images, given: Encoded | None = None) -> Features:
        """Return the penultimate features of all members, one after the other."""
        return torch.cat([member.embed(normalised) for member in self._classifiers()], dim=1)

    def raw_outputs(self, features: Features) -> Tensor:
        width = features.shape[1] // len(self.members)
        parted = zip(self._classifiers(), features.split(width, dim=1), strict=True)
        return torch.cat([member.raw_outputs(part) for member, part in parted], dim=1)

    def _classifiers(self) -> list[Classifier]:
        return [member for member in self.members if isinstance(member, Classifier)]


def _raw(raw: Tensor) -> Tensor:
    return raw
