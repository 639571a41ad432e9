"""FAB towards the boundaries of the likeliest other classes, far ones dropped soon: few passes, for `quick`."""

from collections.abc import Iterator

from generalist.attacks.autoattack_config import AttackRun, AutoAttackConfig
from generalist.attacks.runs import GIVE_UP_EARLY, targeted_fab_run


def runs(setting: AutoAttackConfig) -> Iterator[AttackRun]:
    """Yield the runs of this attack."""
    for name, config in setting.each_view_of_logits():
        for ranks in setting.ranks():
            yield targeted_fab_run(config, f"near{name}", ranks, GIVE_UP_EARLY)
