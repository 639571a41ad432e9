"""FAB towards the boundaries of the likeliest other classes, far ones dropped soon: few passes, for `quick`."""

from collections.abc import Iterator

from generalist.attacks.setting import Setting, Wave
from generalist.attacks.waves import SOON, aimed_approach


def waves(setting: Setting) -> Iterator[Wave]:
    """Yield the runs of this attack."""
    for name, own in setting.each_view():
        for ranks in setting.ranks():
            yield aimed_approach(own, f"near{name}", ranks, SOON)
