"""The page of a comparison: natural against robust accuracy of all trainings, the front, the curves, and their cost."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from generalist.comparison import NATURAL, ROBUST, Comparison, Published, Row, Spread
from generalist.report.environment import environment
from generalist.report.styles import DASHES, threats_in_words
from generalist.report.svg import EXPERTS, INK, MUTED, PANEL, chart
from generalist.report.tradeoff_plane import HEIGHT, RIGHT, framed, note

_WIDE = 1.25
"""How much higher the plane is than that of a single training: there are more marks in it."""


class TableRow(NamedTuple):
    """A row of the page's table.

    Attributes:
        number: in the picture.
        row: what it came to.
        on_front: whether no other row beats it in both accuracies.
        differences: to the reference, paired by seed, by the name of a value.
        above: see `Comparison.above_curves`.
    """

    number: int
    row: Row
    on_front: bool
    differences: dict[str, Spread | None]
    above: Spread | None


def build(comparison: Comparison) -> str:
    """Return the page as HTML without scripts and without a reference to anything outside itself.

    Args:
        comparison: at least one of its trainings is there.
    """
    rows, front = comparison.rows(), {row.title for row in comparison.front()}
    reference = next((row for row in rows if row.title == comparison.reference), None)
    columns = comparison.columns()
    table = [
        TableRow(
            number,
            row,
            row.title in front,
            {} if reference in (None, row) else {name: _less(row, reference, name) for name in columns},
            comparison.above_curves(row),
        )
        for number, row in enumerate(rows, start=1)
    ]
    draw = partial(_draw, table=table, comparison=comparison)
    first = comparison.trainings[0]
    return (
        environment()
        .get_template("frontier.html.j2")
        .render(
            comparison=comparison,
            table=table,
            columns=columns,
            protocol=first.protocol,
            headline=threats_in_words(first.protocol.headline_threats),
            machines=sorted({training.machine for training in comparison.trainings}),
            seeds=max(len(row.trainings) for row in rows),
            plane=chart(
                draw, label="Natural accuracy (across) against robust accuracy (up)", height=_WIDE * HEIGHT, right=RIGHT
            ),
        )
    )


def _less(row: Row, reference: Row | None, name: str) -> Spread | None:
    both = reference is not None and name in row.values and name in reference.values
    return row.less(reference, name) if both and reference is not None else None


def _draw(axes: Axes, *, table: Sequence[TableRow], comparison: Comparison) -> None:
    places = {own.row.title: tuple(own.row.spread(name) for name in (NATURAL, ROBUST)) for own in table}
    for index, (name, rows) in enumerate(comparison.curves().items()):
        style: dict[str, Any] = {"color": EXPERTS[index % len(EXPERTS)], "linewidth": 1.2, "label": name}
        x, y = zip(*((places[row.title][0].mean, places[row.title][1].mean) for row in rows), strict=True)
        axes.plot(x, y, DASHES[index // len(EXPERTS) % len(DASHES)], **style, zorder=1)
    front = comparison.front()
    x, y = zip(*((places[row.title][0].mean, places[row.title][1].mean) for row in front), strict=True)
    axes.plot(x, y, color=MUTED, linewidth=0.8, linestyle=":", label="front", zorder=1)
    for own in table:
        natural, robust = places[own.row.title]
        face = INK if own.on_front else PANEL
        mark: dict[str, Any] = {"markerfacecolor": face, "markeredgecolor": INK, "markeredgewidth": 1.0}
        axes.plot(natural.mean, robust.mean, "o", markersize=5, **mark, zorder=3)
        note(axes, str(own.number), (natural.mean, robust.mean), offset=(4.0, 3.0), fontsize=8)
    for published in comparison.published:
        _published(axes, published)
    means = [(natural.mean, robust.mean) for natural, robust in places.values()]
    framed(axes, [*means, *((one.natural, one.robust) for one in comparison.published)])
    for natural, robust in places.values():
        _cross(axes, natural, robust)


def _cross(axes: Axes, natural: Spread, robust: Spread) -> None:
    """Draw both intervals as far as they lie in the plane, where there are several seeds."""
    if natural.low == float("-inf"):
        return
    style: dict[str, Any] = {"color": MUTED, "linewidth": 0.7, "alpha": 0.6, "zorder": 2}
    axes.plot(np.clip([natural.low, natural.high], *axes.get_xlim()), [robust.mean] * 2, **style)
    axes.plot([natural.mean] * 2, np.clip([robust.low, robust.high], *axes.get_ylim()), **style)


def _published(axes: Axes, published: Published) -> None:
    axes.plot(published.natural, published.robust, "x", color=MUTED, markersize=5, zorder=2)
    note(axes, published.title, (published.natural, published.robust), offset=(4.0, -8.0), fontsize=7)
