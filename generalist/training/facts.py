"""What a training tells while it runs."""

from generalist.records import EpochRecord, GlobalRecord, RoundRecord

Fact = EpochRecord | GlobalRecord | RoundRecord


def identity(fact: Fact) -> tuple[str, int, str]:
    """What a fact is about; a step that is repeated tells it once more."""
    return type(fact).__name__, fact.epoch, getattr(fact, "expert", "")
