"""APGD on targeted margins from output-diversified starts: stronger than the published members."""

from collections.abc import Iterator

from generalist.attacks.autoattack_config import AttackRun, AutoAttackConfig
from generalist.attacks.losses import targeted_margin
from generalist.attacks.runs import targeted_apgd_run


def runs(setting: AutoAttackConfig) -> Iterator[AttackRun]:
    """Yield the runs of this attack."""
    for name, config in setting.each_view():
        for ranks in setting.ranks():
            yield targeted_apgd_run(config, f"margin{name}", config.loss(targeted_margin), ranks, diversified=True)
