"""SAM: sharpness-aware minimisation."""

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from generalist.config import Schedule
from generalist.config.bounds import NonNegativeSchedule
from generalist.perturbations.contract import Perturbation

_TINY = 1e-12  # beside the norm of all gradients, as in the authors' code


class Sam(Perturbation):
    """All weights move along their gradient by one length, that of the move as a whole (Foret et al., ICLR 2021)."""

    name: Literal["sam"]
    rho: NonNegativeSchedule = Field(
        Schedule.model_validate(0.05), description="length of the move; 0 for as long as it shall not begin"
    )

    def strength(self, progress: float) -> float:
        return self.rho.at(progress)

    @torch.no_grad()
    def ascent(self, parameters: Mapping[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Return rho g / ||g||, g being the gradient of all weights together."""
        gradients = {name: parameter.grad for name, parameter in parameters.items() if parameter.grad is not None}
        length = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(gradients.values()))))
        share = self.strength(progress) / (length + _TINY)
        return {name: gradient * share for name, gradient in gradients.items()}
