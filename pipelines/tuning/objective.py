"""What a search looks for, as numbers to be made large."""

from generalist.config import NaturalAtLeast, TuningOptions
from generalist.records import Measured


class Objective:
    """The objective of `tuning.objective`.

    Attributes:
        names: of its one or two values.
    """

    def __init__(self, options: TuningOptions) -> None:
        self._wanted = options.objective
        if isinstance(self._wanted, NaturalAtLeast):
            least = float(self._wanted.natural_at_least)
            self.names: tuple[str, ...] = (f"robust accuracy where natural accuracy is at least {least:g}",)
        elif self._wanted == "pareto":
            self.names = ("natural accuracy", "robust accuracy")
        else:
            self.names = ("harmonic mean",)

    def values(self, measured: Measured) -> tuple[float, ...]:
        """Return one or two values."""
        if self._wanted == "pareto":
            return measured.natural.value, measured.robust.value
        return (self.value(measured),)

    def value(self, measured: Measured) -> float:
        """Return a single value that puts learners in order; of two objectives, it is their harmonic mean.

        A learner that is not accurate enough comes after all that are, and the less accurate the later.
        """
        if isinstance(self._wanted, NaturalAtLeast):
            short = measured.natural.value - float(self._wanted.natural_at_least)
            return measured.robust.value if short >= 0 else short
        return measured.harmonic
