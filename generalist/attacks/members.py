"""The attacks of a cascade by name: which runs, from which starts, at which classes, with the published settings.

Settings are those of AutoAttack (Croce and Hein, ICML 2020, section 5; in L1: ICML 2021) where it has them.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from generalist.attacks.losses import (
    Network,
    cross_entropy,
    dlr,
    scaled_cross_entropy,
    targeted_dlr,
    targeted_margin,
)
from generalist.attacks.setting import Setting, Wave
from generalist.attacks.victim import Victim
from generalist.attacks.waves import (
    SOON,
    aimed_approach,
    aimed_ascent,
    approach,
    ascent,
    by_queries,
)


def apgd_ce(setting: Setting) -> Iterator[Wave]:
    """APGD on the cross-entropy, then on the scaled one, then through each view; last the restarts."""
    yield ascent(setting, "ce", cross_entropy, range(1))
    yield ascent(setting, "scaled ce", scaled_cross_entropy, range(1))
    for name, view in setting.views.items():
        yield ascent(_through(setting, view), f"ce through {name}", cross_entropy, range(1))
    restarts = max(setting.restarts, 5) if setting.threat.norm == "l1" else setting.restarts
    if restarts > 1:
        yield ascent(setting, "ce", cross_entropy, range(1, restarts))


def apgd_dlr(setting: Setting) -> Iterator[Wave]:
    """APGD on DLR."""
    yield ascent(setting, "dlr", dlr, range(1))
    for name, view in setting.views.items():
        yield ascent(_through(setting, view), f"dlr through {name}", dlr, range(1))
    if setting.restarts > 1:
        yield ascent(setting, "dlr", dlr, range(1, setting.restarts))


def apgd_t(setting: Setting) -> Iterator[Wave]:
    """APGD on targeted DLR: the likeliest other class, then all others at once.

    In L1 the first five classes, as published, then the likeliest from 18 more starts: what decides there is the
    start (docs/decisions.md).
    """
    sparse = setting.threat.norm == "l1"
    fewer = replace(setting, targets=min(setting.targets, 5)) if sparse else setting
    for name, own in _all_views(fewer):
        for ranks in _ranks(own):
            yield aimed_ascent(own, f"dlr{name}", targeted_dlr, ranks)
        if sparse:
            yield aimed_ascent(own, f"dlr again{name}", targeted_dlr, [0] * 18, draws=range(1, 19))


def odi_t(setting: Setting) -> Iterator[Wave]:
    """APGD on targeted margins from output-diversified starts: stronger than the published members."""
    for name, own in _all_views(setting):
        for ranks in _ranks(setting):
            yield aimed_ascent(own, f"margin{name}", targeted_margin, ranks, diversified=True)


def fab_t(setting: Setting) -> Iterator[Wave]:
    """FAB towards the boundaries of the likeliest other classes; APGD from what it found."""
    for name, own in _all_views(setting):
        yield aimed_approach(own, f"fab{name}", range(min(own.targets, own.classes - 1)))


def fab_soon(setting: Setting) -> Iterator[Wave]:
    """The same, with far boundaries dropped soon: few passes, for `quick`."""
    for name, own in _all_views(setting):
        for ranks in _ranks(setting):
            yield aimed_approach(own, f"near{name}", ranks, SOON)


def fab_untargeted(setting: Setting) -> Iterator[Wave]:
    """FAB towards the nearest boundary; from the image, then from random points."""
    for name, own in _all_views(setting):
        yield approach(own, f"fab{name}", range(1))
        if setting.restarts > 1:
            yield approach(own, f"fab{name}", range(1, setting.restarts))


def square_wave(setting: Setting) -> Iterator[Wave]:
    """Square from logits alone."""
    yield by_queries(setting, "square")


MEMBERS: dict[str, Callable[[Setting], Iterator[Wave]]] = {
    "apgd-ce": apgd_ce,
    "apgd-dlr": apgd_dlr,
    "apgd-t": apgd_t,
    "fab-t": fab_t,
    "fab": fab_untargeted,
    "square": square_wave,
    "odi-t": odi_t,
    "fab-soon": fab_soon,
}
GRADIENT_FREE = ("square",)


def _through(setting: Setting, view: Network) -> Setting:
    return replace(setting, victim=Victim(setting.victim.decision, view))


def _all_views(setting: Setting) -> list[tuple[str, Setting]]:
    return [("", setting), *((f" through {name}", _through(setting, own)) for name, own in setting.views.items())]


def _ranks(setting: Setting) -> list[range]:
    """Of the classes to aim at: the likeliest alone breaks most, so the others are spared where it does."""
    count = min(setting.targets, setting.classes - 1)
    return [range(1), range(1, count)] if count > 1 else [range(1)]
