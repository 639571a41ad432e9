"""Mixtures of averaged experts in the trade-off plane, as a picture of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from generalist.records import Measured
from generalist.report.curves import ring
from generalist.report.svg import EXPERTS, INK, MUTED, PANEL, SMALL, picture
from generalist.report.tradeoff_plane import HEIGHT, RIGHT, corners, cross, framed, note, place

BELOW = 76.0
"""Points for the legend."""

WORDS = 0.3
"""Share of the width that an expert's name takes, about."""

LINE = 0.05
"""Share of the height that it takes."""


@dataclass(frozen=True)
class Mixture:
    """One mixture: its weights in words where they are to be read in the picture, else nothing; its accuracies."""

    label: str
    validation: Measured


@dataclass(frozen=True)
class MixtureSeries:
    """Mixtures that were measured by the same attack.

    Attributes:
        attack: for readers.
        mixtures: in order of weights.
        line: whether neighbours in this order differ little, so that a line through them says something.
    """

    attack: str
    mixtures: Sequence[Mixture]
    line: bool


def remixes(sweep: MixtureSeries, judged: MixtureSeries, *, trained: Sequence[Measured], chosen: Mixture) -> bytes:
    """Return a PNG of a sweep over mixtures, of those that were judged by a stronger attack, and of what was chosen.

    Args:
        sweep: all of them.
        judged: the best of them and the learner as it was trained.
        trained: the learner as it was trained, by the attacks of both.
        chosen: among those that were judged; its weights stand in the legend.
    """
    draw = partial(_draw, sweep=sweep, judged=judged, trained=trained, chosen=chosen)
    return picture(draw, height=HEIGHT + BELOW, right=RIGHT, below=BELOW)


def _draw(
    axes: Axes, *, sweep: MixtureSeries, judged: MixtureSeries, trained: Sequence[Measured], chosen: Mixture
) -> None:
    intervals = chosen.validation.natural, chosen.validation.robust
    cross(axes, *intervals, MUTED)
    for series, colour, marker, size in ((sweep, EXPERTS[0], "o", 5), (judged, EXPERTS[1], "s", 6)):
        x, y = zip(*(place(mixture.validation) for mixture in series.mixtures), strict=True)
        style = "-" if series.line else "none"
        axes.plot(x, y, color=colour, marker=marker, markersize=size, linestyle=style, label=series.attack)
    x, y = zip(*map(place, trained), strict=True)
    hollow: dict[str, Any] = {"markerfacecolor": PANEL, "markeredgecolor": INK, "markeredgewidth": 1.5}
    axes.plot(x, y, "D", markersize=7, **hollow, label="as trained, by both", zorder=3)
    ring(axes, *place(chosen.validation), label=f"chosen: {chosen.label}, with 95 % intervals")
    mixtures = [*sweep.mixtures, *judged.mixtures]
    framed(axes, [*(place(mixture.validation) for mixture in mixtures), *corners(*intervals)])
    axes.legend(loc="upper left", bbox_to_anchor=(-0.12, -0.14), frameon=False)
    _name(axes, sweep.mixtures)


def _name(axes: Axes, mixtures: Sequence[Mixture]) -> None:
    """Put labels, away from the other mixtures where there is room, and from each other."""
    halo = [withStroke(linewidth=3, foreground=PANEL)]
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    middle = sum(place(mixture.validation)[0] for mixture in mixtures) / len(mixtures)
    taken: list[tuple[float, float]] = []
    for mixture in (mixture for mixture in mixtures if mixture.label):
        x, y = place(mixture.validation)
        room = (x - left if x < middle else right - x) > WORDS * (right - left)
        side = -1.0 if (x < middle) == room else 1.0
        if any(other == side and abs(y - height) < LINE * (top - bottom) for other, height in taken):
            side = -side
        taken.append((side, y))
        where: dict[str, Any] = {"offset": (10.0 * side, -4.0), "ha": "right" if side < 0 else "left"}
        note(axes, mixture.label, (x, y), **where, fontsize=SMALL, path_effects=halo, zorder=5)
