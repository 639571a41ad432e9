"""A dummy class beside each class, for attacked images to go to (DUCAT; with hard targets: Splitting the Difference).

Raw outputs o are 2C: o_c is class c, o_{c+C} its dummy. The larger of both is the logit of the decision, which is the
published recovery (argmax over 2C outputs, modulo C), as a differentiable fold.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from generalist.config import HeadOptions, Quantity
from generalist.models.contract import DECISION, Head, LossView, Role
from generalist.tensors import Labels, Logits, PerImage

_Share = Annotated[Quantity, Field(ge=0, le=1)]


class Dummy(HeadOptions):
    """Two-hot targets: (1 - b) of the label's class and b of its dummy, b by role."""

    name: Literal["dummy"]
    natural: _Share = Field(Quantity(0.25), description="share of the dummy class in the target of a clean image")
    adversarial: _Share = Field(Quantity(1), description="share of the dummy class in the target of an attacked image")

    def __call__(self, classes: int) -> Head:
        return _DummyClasses(classes, float(self.natural), float(self.adversarial))


@dataclass(frozen=True)
class _DummyClasses(Head):
    natural: float
    adversarial: float

    @property
    def outputs(self) -> int:
        return 2 * self.classes

    def decision(self, raw: Tensor) -> Logits:
        return torch.maximum(*raw.chunk(2, dim=1))

    def views(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Return the decision, its smooth form, and the joint losses on the class and its dummy."""
        joint = {
            name: LossView(_raw, partial(joint_margin, temperature=temperature))
            for name, temperature in _TEMPERATURES.items()
        }
        return {DECISION: self.decision, "logsumexp": _logsumexp, **joint}

    def nonadaptive(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Return the raw outputs, which the published evaluation attacks before it recovers classes from them."""
        return {"raw": _raw}

    def targets(self, labels: Labels, role: Role) -> Tensor:
        share = {"natural": self.natural, "adversarial": self.adversarial}[role]
        shares = torch.tensor([1 - share, share], device=labels.device)
        return torch.kron(shares, F.one_hot(labels, self.classes).float())


_TEMPERATURES = {"joint": 1.0, "joint-even": math.inf}
"""Of the weights of class and dummy, by view: softmax, and one half each; the decision itself weighs by argmax."""


def joint_margin(raw: Tensor, labels: Labels, targets: Labels | None = None, *, temperature: float) -> PerImage:
    """Return max_{k not y, y+C} o_k - (w o_y + (1 - w) o_{y+C}), w = softmax of o_y and o_{y+C} over the temperature.

    It lowers the true class and its dummy together, as the attack DAWA does (arXiv 2603.29182, whose weights are not
    public: these are ours). Gradients don't flow through w. With targets, k is the target or its dummy.
    """
    folded, classes = torch.maximum(*raw.chunk(2, dim=1)), raw.shape[1] // 2
    own, dummy = raw.gather(1, torch.stack((labels, labels + classes), dim=1)).unbind(1)
    weight = torch.sigmoid((own - dummy) / temperature).detach()
    if targets is None:
        rival = folded.scatter(1, labels[:, None], -torch.inf).amax(1)
    else:
        rival = folded.gather(1, targets[:, None]).squeeze(1)
    return rival - (weight * own + (1 - weight) * dummy)


def _raw(raw: Tensor) -> Tensor:
    return raw


def _logsumexp(raw: Tensor) -> Logits:
    return torch.logaddexp(*raw.chunk(2, dim=1))
