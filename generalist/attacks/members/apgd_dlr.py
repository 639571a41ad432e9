"""APGD on DLR."""

from collections.abc import Iterator

from generalist.attacks.autoattack_config import AttackRun, AutoAttackConfig
from generalist.attacks.losses import dlr
from generalist.attacks.runs import apgd_run


def runs(setting: AutoAttackConfig) -> Iterator[AttackRun]:
    """Yield the runs of this attack."""
    yield apgd_run(setting, "dlr", dlr, range(1))
    for name, view in setting.views.items():
        through = setting.through(view)
        yield apgd_run(through, f"dlr through {name}", through.loss(dlr), range(1))
    if setting.restarts > 1:
        yield apgd_run(setting, "dlr", dlr, range(1, setting.restarts))
