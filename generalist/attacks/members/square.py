"""Square from logits alone."""

from collections.abc import Iterator

from generalist.attacks.autoattack_config import AttackRun, AutoAttackConfig
from generalist.attacks.runs import square_run


def runs(setting: AutoAttackConfig) -> Iterator[AttackRun]:
    """Yield the runs of this attack."""
    yield square_run(setting, "square")
