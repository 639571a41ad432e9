"""APGD on targeted margins from output-diversified starts: stronger than the published members."""

from collections.abc import Iterator

from generalist.attacks.losses import targeted_margin
from generalist.attacks.setting import Setting, Wave
from generalist.attacks.waves import aimed_ascent


def waves(setting: Setting) -> Iterator[Wave]:
    """Yield the runs of this attack."""
    for name, own in setting.each_view():
        for ranks in setting.ranks():
            yield aimed_ascent(own, f"margin{name}", targeted_margin, ranks, diversified=True)
