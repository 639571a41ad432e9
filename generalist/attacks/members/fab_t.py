"""FAB towards the boundaries of the likeliest other classes; APGD from what it found."""

from collections.abc import Iterator

from generalist.attacks.autoattack_config import AttackRun, AutoAttackConfig
from generalist.attacks.runs import targeted_fab_run


def runs(setting: AutoAttackConfig) -> Iterator[AttackRun]:
    """Yield the runs of this attack."""
    for name, config in setting.each_view_of_logits():
        yield targeted_fab_run(config, f"fab{name}", range(min(config.targets, config.classes - 1)))
