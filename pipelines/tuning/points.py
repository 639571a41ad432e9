"""Which points of a space no trial has had."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial

from pipelines.tuning.space import Point, Space


class Untried:
    """What is left of a space, as trials take points."""

    def __init__(self, space: Space, trials: Callable[[], Sequence[FrozenTrial]]) -> None:
        """Keep track of what is left.

        Args:
            space: of all points.
            trials: all there are, whatever became of them.
        """
        self.space, self._trials = space, trials

    def left(self, trial: FrozenTrial, chosen: Mapping[str, Any]) -> bool:
        """Return whether a point that no other trial has agrees with what a trial has chosen so far, and now.

        It looks at one point more than trials have, at most.
        """
        taken = {_key(other.params) for other in self._trials() if other.number != trial.number}
        begun: Point = {**trial.params, **chosen}
        return any(None in point.values() or _key(point) not in taken for point in self.space.points(begun))


def _key(point: Mapping[str, object]) -> frozenset[tuple[str, str]]:
    """Return the same key for equal points; numbers of a range with a step are rounded differently here and there."""
    return frozenset((path, f"{v:.12g}" if isinstance(v, int | float) else str(v)) for path, v in point.items())
