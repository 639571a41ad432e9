"""APGD on targeted DLR: the likeliest other class, then all others at once.

In sparse threats such as L1 the first five classes, as published, then the likeliest from 18 more starts: what
decides there is the start (docs/decisions.md).
"""

from collections.abc import Iterator
from dataclasses import replace

from generalist.attacks.autoattack_config import AttackRun, AutoAttackConfig
from generalist.attacks.losses import targeted_dlr
from generalist.attacks.runs import targeted_apgd_run


def runs(setting: AutoAttackConfig) -> Iterator[AttackRun]:
    """Yield the runs of this attack."""
    sparse = setting.threat.geometry.sparse
    fewer = replace(setting, targets=min(setting.targets, 5)) if sparse else setting
    for name, config in fewer.each_view():
        for ranks in config.ranks():
            yield targeted_apgd_run(config, f"dlr{name}", config.loss(targeted_dlr), ranks)
        if sparse:
            loss = config.loss(targeted_dlr)
            yield targeted_apgd_run(config, f"dlr again{name}", loss, [0] * 18, draws=range(1, 19))
