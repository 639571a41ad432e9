"""The trade-off plane: natural against robust accuracy."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from generalist.records import (
    Accuracy,
    Evaluation,
    History,
    Measured,
    Point,
    RoundRecord,
    base_name,
)
from generalist.report.curves import Panel, by_expert, measured, ring
from generalist.report.styles import DASHES, GLOBAL, LearnerStyle, threats_in_words
from generalist.report.svg import INK, MUTED, PANEL, RULE, SMALL, WIDTH, chart, percentages, shares, steps

HEIGHT, RIGHT = 340.0, 46.0
SAMPLES = 60
"""Points across the plane, and up, at which the harmonic mean is computed."""

Place = tuple[float, float]
Path = Sequence[tuple[int, Measured]]


def on_validation(
    history: History, chosen: RoundRecord, looks: Mapping[str, LearnerStyle], *, deployed: str, attack: str
) -> list[Panel]:
    """Return how the candidates moved: among the experts (if there are several), and close up.

    The path is the global learner's from round to round; where nothing is mixed, the candidates'.
    """
    ends = {r.epoch for r in history.rounds}
    at_ends = [(r.epoch, r.validation) for r in history.course if r.epoch in ends]
    path = at_ends or [(r.epoch, r.validation) for r in history.rounds]
    look = looks[GLOBAL if at_ends else deployed]
    panels = []
    if len(by_expert(history)) > 1:
        draw = partial(among_experts, history=history, chosen=chosen, path=path, looks=looks, look=look)
        panels.append(Panel("Validation: experts and candidates", _plane(draw, "on the validation split"), attack))
    title = f"Validation: {'global learner' if at_ends else 'candidates'}{', close up' if panels else ''}"
    draw = partial(close_up, chosen=chosen, path=path, look=look)
    return [*panels, Panel(title, _plane(draw, "of the candidates"), attack)]


def on_test(evaluation: Evaluation, index: int | None, looks: Mapping[str, LearnerStyle]) -> Panel:
    """Return every learner on the test split under one threat, or their union, with intervals both ways."""
    threats = evaluation.protocol.threats
    written = threats_in_words(threats if index is None else threats[index : index + 1])
    draw = partial(final, evaluation=evaluation, index=index, looks=looks)
    drawn = _plane(draw, f"on the test split under {written}")
    return Panel(f"Test: {written}", drawn, f"{evaluation.protocol.headline}, n = {evaluation.protocol.n}")


def final(axes: Axes, *, evaluation: Evaluation, index: int | None, looks: Mapping[str, LearnerStyle]) -> None:
    """Draw each learner's accuracies under one threat or their union, in per cent, as a mark in a cross.

    A conditional learner is a line from one condition to the next, at each width; a slimmable one that takes no
    condition is a line from one width to the next.
    """
    learners = evaluation.learners.items()
    attacked = {name: one.union if index is None else one.threats[index].worst for name, one in learners}
    places = {name: (one.natural, robust) for name, one in learners if (robust := attacked[name]) is not None}
    conditional = {name: one.at for name, one in learners if one.at != Point() and name in places}
    for name, (natural, robust) in places.items():
        cross(axes, natural, robust, looks[name].colour)
    for name, (natural, robust) in places.items():
        label = "" if name in conditional else looks[name].label
        _mark(axes, Measured(natural=natural, robust=robust), looks[name], label=label)
    lines = _by_condition(axes, places, conditional, looks)
    framed(axes, [corner for pair in places.values() for corner in corners(*pair)])
    for points in lines:
        _beside(axes, points, [list(points.values())])


def _by_condition(
    axes: Axes,
    places: Mapping[str, tuple[Accuracy, Accuracy]],
    conditions: Mapping[str, Point],
    looks: Mapping[str, LearnerStyle],
) -> list[dict[str, Place]]:
    """Join the points of each learner, in order of lambda or width; return them by the words beside them."""
    curves: dict[tuple[str, Point], dict[str, Place]] = {}
    for name, (condition, width) in sorted(conditions.items(), key=lambda item: (-(item[1].width or 0), item[1])):
        by_lambda = condition is not None
        curve = curves.setdefault((base_name(name), Point(width=width) if by_lambda else Point()), {})
        natural, robust = places[name]
        curve[f"{condition if by_lambda else width:g}"] = place(Measured(natural=natural, robust=robust))
    widths = list(dict.fromkeys(at for _, at in curves))
    for (name, at), points in curves.items():
        x, y = zip(*points.values(), strict=True)
        by = "width" if conditions[name].condition is None else "lambda"
        label = ", ".join([looks[name].label.partition(",")[0], *filter(None, [str(at)]), f"by {by}"])
        dash = DASHES[widths.index(at) % len(DASHES)]
        axes.plot(x, y, dash, color=looks[name].colour, linewidth=1.4, label=label, zorder=2)
    return list(curves.values())


def among_experts(
    axes: Axes,
    *,
    history: History,
    chosen: RoundRecord,
    path: Path,
    looks: Mapping[str, LearnerStyle],
    look: LearnerStyle,
) -> None:
    """Draw where each expert ended (filled), where its warm-up ended (hollow), and the path of the candidates."""
    ends = {name: points[-1][1] for name, points in measured(history).items() if points and name != GLOBAL}
    starts = {name: m for name in ends if (m := _after_warm_up(history, name)) is not None}
    for name, m in ends.items():
        _mark(axes, m, looks[name], label=looks[name].label)
    for name, m in starts.items():
        _mark(axes, m, looks[name], filled=False)
    _path(axes, path, look)
    ring(axes, *place(chosen.validation))
    framed(axes, map(place, [*ends.values(), *starts.values(), *(m for _, m in path), chosen.validation]))


def close_up(axes: Axes, *, chosen: RoundRecord, path: Path, look: LearnerStyle) -> None:
    """Draw the path, and the chosen candidate's intervals."""
    natural, robust = chosen.validation.natural, chosen.validation.robust
    cross(axes, natural, robust, INK)
    _path(axes, path, look)
    ring(axes, *place(chosen.validation), label=f"chosen, epoch {chosen.epoch}")
    framed(axes, [*(place(m) for _, m in path), *corners(natural, robust)])
    ends = {f"epoch {epoch}": place(m) for epoch, m in dict((path[0], path[-1])).items()}
    (left, bottom), (right, top) = corners(natural, robust)
    x, y = place(chosen.validation)
    _beside(axes, ends, [[place(m) for _, m in path], [(left, y), (right, y)], [(x, bottom), (x, top)]])


def _mark(axes: Axes, m: Measured, look: LearnerStyle, *, filled: bool = True, label: str = "") -> None:
    face, edge = (look.colour, PANEL) if filled else (PANEL, look.colour)
    width = 0.7 if filled else 1.5
    style: dict[str, Any] = {"markerfacecolor": face, "markeredgecolor": edge, "markeredgewidth": width}
    axes.plot(*place(m), look.marker, markersize=9, **style, label=label, zorder=3)


def _path(axes: Axes, path: Path, look: LearnerStyle) -> None:
    x, y = zip(*(place(m) for _, m in path), strict=True)
    axes.plot(x, y, color=look.colour, marker=look.marker, markersize=6, label=f"{look.label}, by round")


def cross(axes: Axes, natural: Accuracy, robust: Accuracy, colour: str) -> None:
    """Draw both 95 % intervals. Lines rather than `errorbar`: a legend avoids lines, but not the parts of that."""
    (left, bottom), (right, top) = corners(natural, robust)
    x, y = 100 * natural.value, 100 * robust.value
    for across, up in (([left, right], [y, y]), ([x, x], [bottom, top])):
        axes.plot(across, up, color=colour, linewidth=1.4, alpha=0.75)


def framed(axes: Axes, points: Iterable[Place]) -> None:
    """Draw axes around the points, curves of equal harmonic mean behind them, and a legend where there is room."""
    x, y = (shares(values) for values in zip(*points, strict=True))
    axes.set(xlim=x, ylim=y, xlabel="natural accuracy →")
    axes.set_title("↑ robust accuracy", loc="left")
    axes.set_title("mean", loc="right", x=1 + RIGHT / WIDTH)
    for axis, most in ((axes.xaxis, 6), (axes.yaxis, 8)):
        axis.set_major_locator(steps(most=most))
        axis.set_major_formatter(percentages())
    across, up = np.meshgrid(np.linspace(*x, SAMPLES), np.linspace(*y, SAMPLES))
    mean = 2 * across * up / np.maximum(across + up, 1e-9)
    levels = steps().tick_values(mean.min(), mean.max())
    axes.contour(across, up, mean, levels=levels, colors=RULE, linewidths=1, zorder=0)
    for level in levels:
        end = level * x[1] / (2 * x[1] - level)  # where the curve leaves the plane
        if y[0] <= end <= y[1] - 0.04 * (y[1] - y[0]):  # above, the axis has its name
            note(axes, percentages()(level), (x[1], end), offset=(4.0, 0.0), va="center")
    axes.legend(loc="best")


_SIDES: tuple[tuple[Place, dict[str, str]], ...] = (
    ((0.0, 8.0), {"ha": "center", "va": "bottom"}),
    ((0.0, -8.0), {"ha": "center", "va": "top"}),
    ((9.0, 0.0), {"ha": "left", "va": "center"}),
    ((-9.0, 0.0), {"ha": "right", "va": "center"}),
    ((0.0, 22.0), {"ha": "center", "va": "bottom"}),
    ((0.0, -22.0), {"ha": "center", "va": "top"}),
)
"""Where a few words may stand, as seen from their point."""


def _beside(axes: Axes, words: Mapping[str, Place], lines: Iterable[Sequence[Place]]) -> None:
    """Put words beside their points, where they cover least of lines, and neither the legend nor each other."""
    legend = axes.get_legend()
    taken = [] if legend is None else [legend.get_window_extent()]
    drawn = [axes.transData.transform(line) for line in lines]
    dots = np.concatenate([*drawn, *(np.linspace(a, b, 30) for line in drawn for a, b in pairwise(line))])
    for text, at in words.items():
        options: list[tuple[int, int, Annotation, Bbox]] = []
        for offset, style in _SIDES:
            option = note(axes, text, at, offset=offset, fontsize=SMALL, zorder=5, **style)
            box = option.get_window_extent().padded(1.0)
            over = sum(map(box.overlaps, taken)) + (axes.bbox.count_contains(box.corners()) < 4)
            options.append((1000 * over + box.count_contains(dots), len(options), option, box))
        best = min(options, key=lambda option: option[:2])
        taken.append(best[3])
        for _, _, option, _ in options:
            if option is not best[2]:
                option.remove()


def note(axes: Axes, text: str, at: Place, *, offset: Place, **style: Any) -> Annotation:
    """Put a few words beside a point."""
    return axes.annotate(text, at, offset, textcoords="offset points", color=MUTED, **style)


def _after_warm_up(history: History, name: str) -> Measured | None:
    """Return the expert at the end of the warm-up, before the first redistribution."""
    if not history.course or not history.rounds[0].handed_back:
        return None
    epoch = history.rounds[0].epoch
    return next((r.validation for r in by_expert(history)[name] if r.epoch == epoch), None)


def _plane(draw: Callable[[Axes], object], where: str) -> Markup:
    label = f"Natural accuracy (across) against robust accuracy (up) {where}"
    return chart(draw, label=label, height=HEIGHT, right=RIGHT)


def place(m: Measured) -> Place:
    """Return where a learner lies, in per cent."""
    return 100 * m.natural.value, 100 * m.robust.value


def corners(natural: Accuracy, robust: Accuracy) -> list[Place]:
    """Return two corners of both 95 % intervals, in per cent."""
    (left, right), (bottom, top) = natural.interval, robust.interval
    return [(100 * left, 100 * bottom), (100 * right, 100 * top)]
