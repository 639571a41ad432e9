"""Who follows a run in tests."""

from generalist.attacks import AttackProgress
from generalist.records import EpochRecord, RoundRecord


class Listener:
    """Whoever follows a run."""

    def __init__(self) -> None:
        self.epochs: list[tuple[str, int, float]] = []
        self.rounds: list[tuple[int, str]] = []
        self.attacks: dict[tuple[str, str], tuple[float, int]] = {}

    def epoch(self, record: EpochRecord, total_epochs: int) -> None:
        """Keep an epoch."""
        self.epochs.append((record.expert, record.epoch, record.loss))

    def round(self, record: RoundRecord) -> None:
        """Keep a round."""
        self.rounds.append((record.epoch, record.digest))

    def attack(self, learner: str, standing: AttackProgress) -> None:
        """Keep how an attack ended."""
        self.attacks[learner, standing.attack] = (standing.done, standing.robust)

    def say(self, text: str) -> None:
        """Nothing."""
