"""What a perturbation of the weights gets and gives."""

from abc import abstractmethod
from collections.abc import Mapping

from torch import Tensor

from generalist.config import PerturbationOptions


class Perturbation(PerturbationOptions):
    """Options of one way to move the weights, from their gradients, before those that train them are taken.

    In each step: gradients of the whole objective at the weights as they are, a move by `ascent`, gradients there, the
    optimizer's step, and the move taken back. BatchNorm's statistics follow the second pass alone.
    """

    @abstractmethod
    def strength(self, progress: float) -> float:
        """Return how strong it is at a progress in [0, 1]; where it is 0, the step is plain and costs nothing more."""

    @abstractmethod
    def ascent(self, parameters: Mapping[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Return what is added to some of the parameters, by their names.

        Args:
            parameters: with their gradients in `grad`.
            progress: in [0, 1].
        """
