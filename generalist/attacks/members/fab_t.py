"""FAB towards the boundaries of the likeliest other classes; APGD from what it found."""

from collections.abc import Iterator

from generalist.attacks.setting import Setting, Wave
from generalist.attacks.waves import aimed_approach


def waves(setting: Setting) -> Iterator[Wave]:
    """Yield the runs of this attack."""
    for name, own in setting.each_view():
        yield aimed_approach(own, f"fab{name}", range(min(own.targets, own.classes - 1)))
