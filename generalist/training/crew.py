"""Who advances the units of a round: this process, or a process for each unit, to the same bits."""

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from generalist.records import EpochRecord
from generalist.training.keys import Positions
from generalist.training.plan import Round
from generalist.training.processes import Cuts, Processes
from generalist.training.steps import Training


class Crew(Protocol):
    """Advances units; threads may share it."""

    def advance(self, round_: Round, unit: Sequence[str], positions: Positions) -> Generator[EpochRecord, None, Cuts]:
        """As `Training.advance`."""

    def all_units(self, round_: Round, positions: Positions) -> Generator[EpochRecord, None, Cuts]:
        """Every unit of a round; records come in any order of experts."""


class _Here:
    """This process, one unit after the other."""

    def __init__(self, training: Training) -> None:
        self.advance = training.advance

    def all_units(self, round_: Round, positions: Positions) -> Generator[EpochRecord, None, Cuts]:
        cuts: Cuts = {}
        for unit in round_.units:
            cuts |= yield from self.advance(round_, unit, positions)
        return cuts


def crew(training: Training) -> AbstractContextManager[Crew]:
    """The crew that the configuration asks for; its processes end with the block."""
    if training.config.training.processes == "experts":
        return Processes(training)
    return nullcontext(_Here(training))
