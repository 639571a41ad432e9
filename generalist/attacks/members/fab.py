"""FAB towards the nearest boundary; from the image, then from random points."""

from collections.abc import Iterator

from generalist.attacks.autoattack_config import AttackRun, AutoAttackConfig
from generalist.attacks.runs import fab_run


def runs(setting: AutoAttackConfig) -> Iterator[AttackRun]:
    """Yield the runs of this attack."""
    for name, config in setting.each_view_of_logits():
        yield fab_run(config, f"fab{name}", range(1))
        if setting.restarts > 1:
            yield fab_run(config, f"fab{name}", range(1, setting.restarts))
