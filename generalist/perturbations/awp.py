"""AWP: adversarial weight perturbation."""

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from generalist.config import Schedule
from generalist.perturbations.contract import Perturbation

_TINY = 1e-20  # beside a norm of gradients, as in the published code


class Awp(Perturbation):
    """Each layer's weights move along their gradient by a share of their norm (Wu et al., NeurIPS 2020).

    As in the published code these are tensors of more than one dimension: biases and BatchNorm's scales stay.
    """

    name: Literal["awp"]
    gamma: Schedule = Field(
        Schedule.model_validate(0.01),
        description="length of the move over the norm of a layer's weights; 0 for as long as it shall not begin",
    )

    @model_validator(mode="after")
    def _within_range(self) -> "Awp":
        low, high = self.gamma.extremes()
        if low < 0 or high > 1:
            raise ValueError("'gamma' must lie between 0 and 1: a share of the weights' norm")
        return self

    def strength(self, progress: float) -> float:
        return self.gamma.at(progress)

    @torch.no_grad()
    def ascent(self, parameters: Mapping[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Return gamma ||w|| g / ||g|| for each layer's weights w and their gradient g."""
        gamma = self.strength(progress)
        return {
            name: parameter.grad * (gamma * parameter.norm() / (parameter.grad.norm() + _TINY))
            for name, parameter in parameters.items()
            if parameter.ndim > 1 and parameter.grad is not None
        }
