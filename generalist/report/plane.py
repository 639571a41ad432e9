"""The trade-off plane: natural against robust accuracy."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes

from generalist.records import Accuracy, Evaluation, History, Measured, RoundRecord
from generalist.report.curves import Panel, by_expert, measured, ring
from generalist.report.figures import INK, MUTED, PANEL, RULE, SMALL, chart, percentages, shares, steps
from generalist.report.looks import GLOBAL, Look, threat

HEIGHT = 340.0
SAMPLES = 60
"""Points across the plane, and up, at which the harmonic mean is computed."""

Point = tuple[float, float]
Path = Sequence[tuple[int, Measured]]


def on_validation(
    history: History, chosen: RoundRecord, looks: Mapping[str, Look], *, deployed: str, attack: str
) -> list[Panel]:
    """How the candidates moved: among the experts (if there are several), and close up.

    The path is the global learner's from round to round; where nothing is mixed, the candidates'.
    """
    ends = {r.epoch for r in history.rounds}
    course = [(r.epoch, r.validation) for r in history.course if r.epoch in ends]
    path = course or [(r.epoch, r.validation) for r in history.rounds]
    look = looks[GLOBAL if course else deployed]
    panels = []
    if len(by_expert(history)) > 1:
        draw = partial(among_experts, history=history, chosen=chosen, path=path, looks=looks, look=look)
        panels.append(
            Panel(
                "Validation: experts and candidates",
                chart(draw, label=_label("on the validation split"), height=HEIGHT),
                attack,
            )
        )
    title = f"Validation: {'global learner' if course else 'candidates'}{', close up' if panels else ''}"
    draw = partial(close_up, chosen=chosen, path=path, look=look)
    return [*panels, Panel(title, chart(draw, label=_label("of the candidates"), height=HEIGHT), attack)]


def on_test(evaluation: Evaluation, index: int, looks: Mapping[str, Look]) -> Panel:
    """Every learner on the test split under one threat, with intervals both ways."""
    written = evaluation.protocol.threats[index]
    label = _label(f"on the test split under {written}")
    drawn = chart(partial(final, evaluation=evaluation, index=index, looks=looks), label=label, height=HEIGHT)
    return Panel(f"Test: {threat(written)}", drawn, f"{evaluation.protocol.cascade}, n = {evaluation.protocol.n}")


def final(axes: Axes, *, evaluation: Evaluation, index: int, looks: Mapping[str, Look]) -> None:
    """Each learner's accuracies under one threat, in per cent, as a mark in a cross of intervals."""
    places = {name: (one.natural, one.threats[index].cascade) for name, one in evaluation.learners.items()}
    for name, (natural, robust) in places.items():
        _cross(axes, natural, robust, looks[name].colour, fmt=looks[name].marker, label=looks[name].label)
    _frame(axes, [corner for pair in places.values() for corner in _corners(*pair)])


def among_experts(
    axes: Axes, *, history: History, chosen: RoundRecord, path: Path, looks: Mapping[str, Look], look: Look
) -> None:
    """Where each expert ended (filled), where its warm-up ended (hollow), and the path of the candidates."""
    ends = {name: points[-1][1] for name, points in measured(history).items() if points and name != GLOBAL}
    starts = {name: m for name in ends if (m := _after_warm_up(history, name)) is not None}
    for name, m in ends.items():
        _mark(axes, m, looks[name], filled=True, label=looks[name].label)
    for name, m in starts.items():
        _mark(axes, m, looks[name], filled=False)
    _path(axes, path, look)
    ring(axes, *_point(chosen.validation))
    _frame(axes, map(_point, [*ends.values(), *starts.values(), *(m for _, m in path), chosen.validation]))


def close_up(axes: Axes, *, chosen: RoundRecord, path: Path, look: Look) -> None:
    """The path, and the chosen candidate's intervals."""
    natural, robust = chosen.validation.natural, chosen.validation.robust
    _cross(axes, natural, robust, INK)
    _path(axes, path, look)
    ring(axes, *_point(chosen.validation), label=f"chosen, epoch {chosen.epoch}")
    for epoch, m in dict((path[0], path[-1])).items():
        text = {"xytext": (0, 7), "textcoords": "offset points", "ha": "center", "color": MUTED}
        axes.annotate(f"epoch {epoch}", _point(m), **text, fontsize=SMALL, zorder=5)
    _frame(axes, [*(_point(m) for _, m in path), *_corners(natural, robust)])


def _mark(axes: Axes, m: Measured, look: Look, *, filled: bool, label: str = "") -> None:
    face, edge = (look.colour, PANEL) if filled else (PANEL, look.colour)
    style = {"linestyle": "none", "marker": look.marker, "markersize": 9, "markeredgewidth": 1.5}
    axes.plot(*_point(m), **style, markerfacecolor=face, markeredgecolor=edge, label=label, zorder=3)


def _path(axes: Axes, path: Path, look: Look) -> None:
    x, y = zip(*(_point(m) for _, m in path), strict=True)
    axes.plot(x, y, color=look.colour, marker=look.marker, markersize=6, label=f"{look.label}, by round")


def _cross(axes: Axes, natural: Accuracy, robust: Accuracy, colour: str, *, fmt: str = "none", label: str = "") -> None:
    x, y = 100 * natural.value, 100 * robust.value
    reach = [[[at - 100 * of.interval[0]], [100 * of.interval[1] - at]] for at, of in ((x, natural), (y, robust))]
    style = {"color": colour, "elinewidth": 1.4, "markersize": 10, "markeredgecolor": PANEL}
    axes.errorbar(x, y, xerr=reach[0], yerr=reach[1], fmt=fmt, label=label, **style)


def _frame(axes: Axes, points: Iterable[Point]) -> None:
    """Axes around the points, curves of equal harmonic mean behind them, and a legend where there is room."""
    x, y = (shares(values) for values in zip(*points, strict=True))
    axes.set(xlim=x, ylim=y, xlabel="natural accuracy →", title="↑ robust accuracy")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(steps())
        axis.set_major_formatter(percentages())
    across, up = np.meshgrid(np.linspace(*x, SAMPLES), np.linspace(*y, SAMPLES))
    mean = 2 * across * up / np.maximum(across + up, 1e-9)
    contours = axes.contour(across, up, mean, levels=steps(), colors=RULE, linewidths=1, zorder=0)
    axes.clabel(contours, fmt="mean %.10g %%", fontsize=SMALL, colors=MUTED)
    axes.legend(loc="best")


def _after_warm_up(history: History, name: str) -> Measured | None:
    """The expert at the end of the warm-up, before the first hand-back."""
    if not history.course or not history.rounds[0].handed_back:
        return None
    epoch = history.rounds[0].epoch
    return next((r.validation for r in by_expert(history)[name] if r.epoch == epoch), None)


def _label(where: str) -> str:
    return f"Natural accuracy (across) against robust accuracy (up) {where}"


def _point(m: Measured) -> Point:
    return 100 * m.natural.value, 100 * m.robust.value


def _corners(natural: Accuracy, robust: Accuracy) -> list[Point]:
    (left, right), (bottom, top) = natural.interval, robust.interval
    return [(100 * left, 100 * bottom), (100 * right, 100 * top)]
