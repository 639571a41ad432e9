"""The trade-off plane: natural against robust accuracy."""

from collections.abc import Mapping, Sequence

from generalist.records import Accuracy, Evaluation, History, Measured, RoundRecord
from generalist.report.curves import Figure, by_expert, measured
from generalist.report.looks import GLOBAL, Look, interval, percent, threat
from generalist.report.svg import CHARACTER, Chart, Point, Scale, ticks

HEIGHT = 340.0
SAMPLES = 60
"""Points that draw one curve of equal harmonic mean."""

Path = Sequence[tuple[int, Measured]]


def on_validation(
    history: History, chosen: RoundRecord, looks: Mapping[str, Look], *, deployed: str, attack: str
) -> list[Figure]:
    """How the candidates moved: among the experts (if there are several), and close up.

    The path is the global learner's from round to round; where nothing is mixed, the candidates'.
    """
    ends = {r.epoch for r in history.rounds}
    course = [(r.epoch, r.validation) for r in history.course if r.epoch in ends]
    path = course or [(r.epoch, r.validation) for r in history.rounds]
    look = looks[GLOBAL if course else deployed]
    figures = []
    if len(by_expert(history)) > 1:
        figures.append(
            Figure(
                "Validation: experts and candidates",
                _among_experts(history, chosen, path, looks, look).markup(),
                attack,
            )
        )
    title = f"Validation: {'global learner' if course else 'candidates'}{', close up' if figures else ''}"
    return [*figures, Figure(title, _close_up(chosen, path, look).markup(), attack)]


def on_test(evaluation: Evaluation, index: int, looks: Mapping[str, Look]) -> Figure:
    """Every learner on the test split under one threat, with intervals both ways."""
    written = evaluation.protocol.threats[index]
    places = {name: (one.natural, one.threats[index].cascade) for name, one in evaluation.learners.items()}
    chart = _frame(
        [corner for pair in places.values() for corner in _corners(*pair)], f"on the test split under {written}"
    )
    for name, (natural, robust) in places.items():
        _cross(chart, natural, robust, looks[name].style)
    for name, (natural, robust) in places.items():
        told = f"{looks[name].label}\nnatural {percent(natural.value)} {interval(natural)}"
        told += f"\nrobust {percent(robust.value)} {interval(robust)}"
        chart.mark((natural.value, robust.value), looks[name].shape, looks[name].style, radius=5.0, tooltip=told)
    for name, (natural, robust) in places.items():
        chart.label((natural.value, robust.value), looks[name].label, f"name {looks[name].style}")
    return Figure(
        f"Test: {threat(written)}", chart.markup(), f"{evaluation.protocol.cascade}, n = {evaluation.protocol.n}"
    )


def _among_experts(history: History, chosen: RoundRecord, path: Path, looks: Mapping[str, Look], look: Look) -> Chart:
    """Where each expert ended, and where its warm-up ended; the path between."""
    ends = {name: points[-1][1] for name, points in measured(history).items() if points and name != GLOBAL}
    starts = {name: m for name in ends if (m := _after_warm_up(history, name)) is not None}
    everything = [*ends.values(), *starts.values(), *(m for _, m in path), chosen.validation]
    chart = _frame([_point(m) for m in everything], "on the validation split")
    for name, m in starts.items():
        told = f"{_told(looks[name], m)}\nwarm-up done"
        chart.mark(_point(m), looks[name].shape, f"hollow {looks[name].style}", radius=4.5, tooltip=told)
    _draw(chart, path, look)
    for name, m in ends.items():
        chart.mark(_point(m), looks[name].shape, looks[name].style, radius=5.0, tooltip=_told(looks[name], m))
    chart.mark(_point(chosen.validation), "circle", "ring", radius=7.5)
    for name, m in ends.items():
        chart.label(_point(m), looks[name].label, f"name {looks[name].style}")
    for name, m in starts.items():
        chart.label(_point(m), f"{name}, warm-up", f"name light {looks[name].style}")
    chart.label(_point(chosen.validation), "chosen", "name", gap=10.0)
    return chart


def _close_up(chosen: RoundRecord, path: Path, look: Look) -> Chart:
    """The path and the chosen candidate's intervals."""
    natural, robust = chosen.validation.natural, chosen.validation.robust
    chart = _frame([*(_point(m) for _, m in path), *_corners(natural, robust)], "on the validation split, close up")
    _cross(chart, natural, robust, "")
    _draw(chart, path, look)
    chart.mark(_point(chosen.validation), "circle", "ring", radius=7.5)
    chart.label(_point(chosen.validation), f"chosen, epoch {chosen.epoch}", "name", gap=10.0)
    for epoch, m in dict((path[0], path[-1])).items():
        if epoch != chosen.epoch:
            chart.label(_point(m), f"epoch {epoch}", "tick")
    return chart


def _draw(chart: Chart, path: Path, look: Look) -> None:
    chart.line([_point(m) for _, m in path], look.style)
    chart.keep_clear([_point(m) for _, m in path])
    for epoch, m in path:
        chart.mark(_point(m), look.shape, look.style, radius=2.6, tooltip=f"{_told(look, m)}\nepoch {epoch}")


def _frame(points: list[Point], where: str) -> Chart:
    """Axes around the points, and curves of equal harmonic mean behind them."""
    x, y = Scale.of_shares((x for x, _ in points), least=3), Scale.of_shares(y for _, y in points)
    label = f"Natural accuracy (across) against robust accuracy (up) {where}"
    chart = Chart(
        x, y, label=label, x_title="natural accuracy →", y_title="↑ robust accuracy", height=HEIGHT, lines=False
    )
    levels = [_harmonic(x.low, y.low), _harmonic(x.high, y.high)]
    crowded = sum(x.share(point[0]) for point in points) > len(points) / 2
    for level in ticks(*levels) if levels[1] > levels[0] else []:
        across = [x.low + (x.high - x.low) * index / SAMPLES for index in range(SAMPLES + 1)]
        curve = [(a, level * a / (2 * a - level)) for a in across if 2 * a > level]
        curve = [point for point in curve if y.low <= point[1] <= y.high]
        if len(curve) > SAMPLES // 3:
            _contour(chart, curve, f"mean {100 * level:.10g} %", "start" if crowded else "end")
    return chart


def _contour(chart: Chart, curve: list[Point], name: str, anchor: str) -> None:
    """The curve, and its name above its left (start) or right end."""
    chart.line(curve, "contour")
    width = 0.85 * CHARACTER * len(name)
    left = chart.at(curve[0])[0] + 2 if anchor == "start" else chart.at(curve[-1])[0] - 2 - width
    top = min(y for x, y in map(chart.at, curve) if left - 4 <= x <= left + width) - 3
    chart.text(left if anchor == "start" else left + width, top, name, "contour-name", anchor=anchor)
    chart.taken.append((left, top - 9, left + width, top + 2))


def _harmonic(natural: float, robust: float) -> float:
    return 2 * natural * robust / (natural + robust) if natural + robust else 0.0


def _after_warm_up(history: History, name: str) -> Measured | None:
    """The expert at the end of the warm-up, before the first hand-back."""
    if not history.course or not history.rounds[0].handed_back:
        return None
    epoch = history.rounds[0].epoch
    return next((r.validation for r in by_expert(history)[name] if r.epoch == epoch), None)


def _point(m: Measured) -> Point:
    return m.natural.value, m.robust.value


def _told(look: Look, m: Measured) -> str:
    return f"{look.label}\nnatural {percent(m.natural.value)}\nrobust {percent(m.robust.value)}"


def _corners(natural: Accuracy, robust: Accuracy) -> list[Point]:
    return [(natural.interval[0], robust.interval[0]), (natural.interval[1], robust.interval[1])]


def _cross(chart: Chart, natural: Accuracy, robust: Accuracy, style: str) -> None:
    chart.cross((natural.value, robust.value), natural.interval, robust.interval, f"interval {style}")
