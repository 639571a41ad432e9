"""APGD on DLR."""

from collections.abc import Iterator

from generalist.attacks.losses import dlr
from generalist.attacks.setting import Setting, Wave
from generalist.attacks.waves import ascent


def waves(setting: Setting) -> Iterator[Wave]:
    """Yield the runs of this attack."""
    yield ascent(setting, "dlr", dlr, range(1))
    for name, view in setting.views.items():
        yield ascent(setting.through(view), f"dlr through {name}", dlr, range(1))
    if setting.restarts > 1:
        yield ascent(setting, "dlr", dlr, range(1, setting.restarts))
