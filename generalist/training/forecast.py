"""What a training would have to do, before it does anything."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from generalist.training.plan import Round


@dataclass(frozen=True)
class GroupForecast:
    """An expert group of a round.

    Attributes:
        round, experts: which.
        stored: epochs up to this one lie in the store, and will not be trained again.
        begun: whether the store holds a state inside the rest, too.
        seconds: what an epoch of the group took here, validation included; None where none was trained here.
    """

    round: Round
    experts: tuple[str, ...]
    stored: int
    begun: bool
    seconds: float | None

    @property
    def epochs(self) -> int:
        """Epochs to train."""
        return self.round.stop - self.stored


def duration(work: Iterable[GroupForecast]) -> float | None:
    """Return the seconds for all of it, a round's groups side by side; None where nothing like a part was measured."""
    total = 0.0
    for _, groups in groupby(work, key=lambda group: group.round.index):
        spans = [0.0 if not group.epochs else group.seconds and group.epochs * group.seconds for group in groups]
        known = [span for span in spans if span is not None]
        if len(known) < len(spans):
            return None
        total += max(known)
    return total
