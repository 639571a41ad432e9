"""Who carries out the steps of a training."""

from collections.abc import Sequence
from typing import Protocol

from generalist.training.facts import Tell
from generalist.training.keys import CheckpointRefs, Cuts
from generalist.training.plan import Round
from generalist.training.trainer import RoundEnd, Trainer


class Runner(Protocol):
    """Carries out the steps that the driver (`rounds`) asks for; every runner does so to the same bits."""

    def advance(self, round_: Round, positions: CheckpointRefs) -> Cuts:
        """Train every group to the end of a round, as `Trainer.advance` does for one."""

    def mix(self, round_: Round, cuts: Cuts) -> RoundEnd:
        """End a round, as `Trainer.mix` does."""


class InProcessRunner:
    """This process, one group after the other; what happens is passed to `tell`."""

    def __init__(self, training: Trainer, tell: Tell) -> None:
        self.training, self.tell = training, tell

    def advance(self, round_: Round, positions: CheckpointRefs) -> Cuts:
        """Train every group to the end of a round."""
        cuts: Cuts = {}
        for group in round_.groups:
            cuts |= self.advance_group(round_, group, positions)
        return cuts

    def advance_group(self, round_: Round, group: Sequence[str], positions: CheckpointRefs) -> Cuts:
        """Train one group to the end of a round; several threads may do so at once."""
        return self.training.advance(round_, group, positions, self.tell)

    def mix(self, round_: Round, cuts: Cuts) -> RoundEnd:
        """End a round."""
        end = self.training.mix(round_, cuts)
        for fact in end.facts:
            self.tell(fact)
        return end
