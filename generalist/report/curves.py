"""Charts by epoch: validation accuracies, training loss, mixing weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from generalist.records import Accuracy, EpochRecord, GlobalRecord, History, Measured, RoundRecord
from generalist.report.looks import GLOBAL, Look, interval, percent
from generalist.report.svg import CHARACTER, Chart, Point, Scale

DENSE = 30
"""Marks on one line above which they are drawn smaller."""

KINDS: dict[str, Callable[[Measured], Accuracy]] = {"Natural": lambda m: m.natural, "Robust": lambda m: m.robust}


@dataclass(frozen=True)
class Figure:
    """A chart, its heading, and a remark on what is measured."""

    title: str
    chart: Markup
    note: str = ""


def by_expert(history: History) -> dict[str, list[EpochRecord]]:
    """The epochs of each expert, in order."""
    found: dict[str, list[EpochRecord]] = {}
    for record in sorted(history.epochs, key=lambda record: record.epoch):
        found.setdefault(record.expert, []).append(record)
    return found


def measured(history: History) -> dict[str, list[tuple[int, Measured]]]:
    """Each learner on the validation split, the global learner last: (epoch, accuracies) wherever measured."""
    found = {
        name: [(r.epoch, r.validation) for r in records if r.validation is not None]
        for name, records in by_expert(history).items()
    }
    course: Sequence[GlobalRecord] = sorted(history.course, key=lambda record: record.epoch)
    return found | ({GLOBAL: [(r.epoch, r.validation) for r in course]} if course else {})


def curves(
    history: History, chosen: RoundRecord, looks: Mapping[str, Look], *, attack: str, largest: int
) -> list[Figure]:
    """Charts of both validation accuracies, the training loss and, where experts are mixed, their weights.

    Args:
        history: the whole training.
        chosen: the round whose candidate was chosen; a ring marks it.
        looks: by learner.
        attack: how robust accuracy was measured on the validation split, for readers.
        largest: number of epochs.
    """
    notes = {"Natural": "validation split, clean images", "Robust": f"validation split, {attack}"}
    figures = []
    for kind in KINDS:
        chart = _accuracies(history, chosen, looks, kind, largest)
        figures.append(Figure(f"{kind} accuracy", chart.markup(), notes[kind]))
    note = "each expert's own objective: compare shapes, not heights"
    figures.append(Figure("Training loss", _losses(history, looks, largest).markup(), note))
    if history.course:
        note = "share of each expert in the mixture at the end of a round"
        figures.append(Figure("Mixing weights", _weights(history, looks, largest).markup(), note))
    return figures


def _accuracies(history: History, chosen: RoundRecord, looks: Mapping[str, Look], kind: str, largest: int) -> Chart:
    of, series = KINDS[kind], measured(history)
    values = [of(m).value for points in series.values() for _, m in points]
    chart = _frame(
        history, Scale.of_shares([*values, of(chosen.validation).value]), f"{kind} accuracy by epoch", largest
    )
    told: dict[int, list[str]] = {}
    for name, points in series.items():
        _series(chart, [(float(epoch), of(m).value) for epoch, m in points], looks[name])
        for epoch, m in points:
            told.setdefault(epoch, []).append(f"{looks[name].label}: {percent(of(m).value)} {interval(of(m))}")
    chart.mark((float(chosen.epoch), of(chosen.validation).value), "circle", "ring", radius=7.5)
    _hover(chart, told, history)
    return chart


def _losses(history: History, looks: Mapping[str, Look], largest: int) -> Chart:
    chart = _frame(history, Scale.from_zero(r.loss for r in history.epochs), "Training loss by epoch", largest)
    told: dict[int, list[str]] = {}
    for name, records in by_expert(history).items():
        _series(chart, [(float(r.epoch), r.loss) for r in records], looks[name])
        for r in records:
            told.setdefault(r.epoch, []).append(f"{looks[name].label}: {r.loss:.4g}")
    _hover(chart, told, history)
    return chart


def _weights(history: History, looks: Mapping[str, Look], largest: int) -> Chart:
    chart = _frame(history, Scale.of_shares([0.0, 1.0]), "Mixing weight of each expert by epoch", largest)
    for name in dict.fromkeys(name for r in history.rounds for name in r.weights):
        _series(chart, [(float(r.epoch), r.weights[name]) for r in history.rounds if name in r.weights], looks[name])
    _hover(
        chart, {r.epoch: [f"{looks[n].label}: {w:.3g}" for n, w in r.weights.items()] for r in history.rounds}, history
    )
    return chart


def _series(chart: Chart, points: list[Point], look: Look) -> None:
    """A line with a mark at each measurement, a larger one at the last."""
    chart.line(points, look.style)
    if len(points) <= DENSE:
        for point in points[:-1]:
            chart.mark(point, look.shape, f"dot {look.style}", radius=2.0)
    for point in points[-1:]:
        chart.mark(point, look.shape, look.style)


def _frame(history: History, y: Scale, label: str, largest: int) -> Chart:
    """Axes over all epochs; where experts are mixed, the warm-up shaded and every round marked."""
    chart = Chart(Scale.of_epochs(largest), y, label=label, x_title="epochs done")
    if not history.course:
        return chart
    warm_up, last = float(history.rounds[0].epoch), float(largest)
    chart.column(0.0, warm_up, "warm-up")
    for r in history.rounds:
        epoch = float(r.epoch)
        chart.segment((epoch, y.low), (epoch, y.high), "hand-back" if r.handed_back else "no-hand-back")
    for start, end, text in ((0.0, warm_up, "warm-up"), (warm_up, last, "mixing rounds")):
        (left, top), (right, _) = chart.at((start, y.high)), chart.at((end, y.high))
        if right - left > CHARACTER * len(text):
            chart.text((left + right) / 2, top - 5, text, "tick", anchor="middle")
    return chart


def _hover(chart: Chart, told: Mapping[int, list[str]], history: History) -> None:
    """A column at each epoch that shows its values while the pointer is on it."""
    rounds = {r.epoch: f", round {r.round}" + (" (handed back)" if r.handed_back else "") for r in history.rounds}
    for epoch, lines in sorted(told.items()):
        tooltip = "\n".join([f"epoch {epoch}{rounds.get(epoch, '')}", *lines])
        chart.column(epoch - 0.5, min(epoch + 0.5, chart.x.high), "hover", tooltip=tooltip)
