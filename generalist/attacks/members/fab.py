"""FAB towards the nearest boundary; from the image, then from random points."""

from collections.abc import Iterator

from generalist.attacks.setting import Setting, Wave
from generalist.attacks.waves import approach


def waves(setting: Setting) -> Iterator[Wave]:
    """Yield the runs of this attack."""
    for name, own in setting.each_view():
        yield approach(own, f"fab{name}", range(1))
        if setting.restarts > 1:
            yield approach(own, f"fab{name}", range(1, setting.restarts))
