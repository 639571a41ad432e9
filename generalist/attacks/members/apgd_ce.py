"""APGD on the cross-entropy, then on the scaled one, then through each view; last the restarts."""

from collections.abc import Iterator

from generalist.attacks.autoattack_config import AttackRun, AutoAttackConfig
from generalist.attacks.losses import cross_entropy, scaled_cross_entropy
from generalist.attacks.runs import apgd_run


def runs(setting: AutoAttackConfig) -> Iterator[AttackRun]:
    """Yield the runs of this attack."""
    yield apgd_run(setting, "ce", cross_entropy, range(1))
    yield apgd_run(setting, "scaled ce", scaled_cross_entropy, range(1))
    for name, view in setting.views.items():
        through = setting.through(view)
        yield apgd_run(through, f"ce through {name}", through.loss(cross_entropy), range(1))
    restarts = max(setting.restarts, 5) if setting.threat.geometry.sparse else setting.restarts
    if restarts > 1:
        yield apgd_run(setting, "ce", cross_entropy, range(1, restarts))
