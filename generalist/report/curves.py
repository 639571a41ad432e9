"""Charts by epoch, and their numbers as a table: validation accuracies, training loss, mixing weights."""

import csv
import io
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes

from generalist.atomic_files import write_atomically
from generalist.records import Accuracy, EpochRecord, GlobalRecord, History, Measured, RoundRecord
from generalist.report.styles import GLOBAL, LearnerStyle
from generalist.report.svg import FAINT, INK, MUTED, chart, from_zero, percentages, shares, steps, swatch

KINDS: dict[str, Callable[[Measured], Accuracy]] = {"Natural": lambda m: m.natural, "Robust": lambda m: m.robust}

REDISTRIBUTION: dict[str, Any] = {"color": MUTED, "alpha": 0.4, "linewidth": 1.0, "linestyle": "-"}
NO_REDISTRIBUTION: dict[str, Any] = {"color": MUTED, "alpha": 0.8, "linewidth": 1.0, "linestyle": ":"}
"""Lines at the rounds' ends: experts go on from the mixture, or on their own."""

RING: dict[str, Any] = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 15,
    "markerfacecolor": "none",
    "markeredgecolor": INK,
    "markeredgewidth": 1.6,
}
"""The chosen candidate."""

Points = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Panel:
    """A chart, its heading, and a remark on what is measured."""

    title: str
    chart: Markup
    note: str = ""


def by_expert(history: History) -> dict[str, list[EpochRecord]]:
    """Return the epochs of each expert, in order."""
    epochs: dict[str, list[EpochRecord]] = {}
    for record in sorted(history.epochs, key=lambda record: record.epoch):
        epochs.setdefault(record.expert, []).append(record)
    return epochs


def measured(history: History) -> dict[str, list[tuple[int, Measured]]]:
    """Return each learner on the validation split, the global learner last: (epoch, accuracies) wherever measured."""
    series = {
        name: [(r.epoch, r.validation) for r in records if r.validation is not None]
        for name, records in by_expert(history).items()
    }
    global_records: Sequence[GlobalRecord] = sorted(history.course, key=lambda record: record.epoch)
    return series | ({GLOBAL: [(r.epoch, r.validation) for r in global_records]} if global_records else {})


def legend(history: History, looks: Mapping[str, LearnerStyle]) -> list[tuple[Markup, str]]:
    """Return the signs in the charts by epoch, and what they mean."""
    upright, centre = {"xdata": [0.5, 0.5], "ydata": [0, 1]}, {"xdata": [0.5], "ydata": [0.5]}
    signs = [(looks[name].swatch("curves"), looks[name].label) for name in measured(history)]
    if history.course:
        signs += [
            (swatch(upright | REDISTRIBUTION, place="curves"), "mixing round, experts go on from the mixture"),
            (swatch(upright | NO_REDISTRIBUTION, place="curves"), "round without redistribution"),
        ]
    return [*signs, (swatch(centre | RING | {"markersize": 11}, place="curves"), "chosen")]


def curves(
    history: History, chosen: RoundRecord, looks: Mapping[str, LearnerStyle], *, attack: str, last: int
) -> list[Panel]:
    """Return charts of both validation accuracies, the training loss and, where experts are mixed, their weights.

    Args:
        history: the whole training.
        chosen: the round whose candidate was chosen; a ring marks it.
        looks: by learner.
        attack: how robust accuracy was measured on the validation split, for readers.
        last: number of epochs.
    """
    notes = {"Natural": "validation split, clean images", "Robust": f"validation split, {attack}"}
    drawn: list[tuple[str, str, Callable[[Axes], None]]] = [
        (f"{kind} accuracy", notes[kind], partial(accuracies, history=history, chosen=chosen, looks=looks, kind=kind))
        for kind in KINDS
    ]
    note = "each expert's own objective: compare shapes, not heights"
    drawn.append(("Training loss", note, partial(losses, history=history, looks=looks)))
    if history.course:
        note = "share of each expert in the mixture at the end of a round"
        drawn.append(("Mixing weights", note, partial(weights, history=history, looks=looks)))

    def framed(axes: Axes, draw: Callable[[Axes], None]) -> None:
        draw(axes)
        frame(axes, history=history, last=last)

    return [
        Panel(title, chart(partial(framed, draw=draw), label=f"{title} by epoch"), note) for title, note, draw in drawn
    ]


def accuracies(
    axes: Axes, *, history: History, chosen: RoundRecord, looks: Mapping[str, LearnerStyle], kind: str
) -> None:
    """Draw each learner's accuracy in per cent by epoch; mark the global learner's every round, ring the chosen."""
    rounds = {r.epoch for r in history.rounds}
    ringed = 100 * KINDS[kind](chosen.validation).value
    everything = [ringed]
    for name, series in measured(history).items():
        points = [(epoch, 100 * KINDS[kind](m).value) for epoch, m in series]
        everything += [value for _, value in points]
        line(axes, points, looks[name], marked=rounds if name == GLOBAL else ())
    ring(axes, float(chosen.epoch), ringed)
    axes.set_ylim(*shares(everything))
    axes.yaxis.set_major_formatter(percentages())


def losses(axes: Axes, *, history: History, looks: Mapping[str, LearnerStyle]) -> None:
    """Draw each expert's training loss by epoch; a NaN or infinite one leaves a gap."""
    for name, records in by_expert(history).items():
        line(axes, [(r.epoch, r.loss) for r in records], looks[name])
    axes.set_ylim(*from_zero(r.loss for r in history.epochs))


def weights(axes: Axes, *, history: History, looks: Mapping[str, LearnerStyle]) -> None:
    """Draw each expert's mixing weight in per cent at the end of every round."""
    for name in dict.fromkeys(name for r in history.rounds for name in r.weights):
        points = [(r.epoch, 100 * r.weights[name]) for r in history.rounds if name in r.weights]
        line(axes, points, looks[name], marked=[epoch for epoch, _ in points])
    axes.set_ylim(0, 100)
    axes.yaxis.set_major_formatter(percentages())


def line(axes: Axes, points: Points, look: LearnerStyle, *, marked: Collection[int] = ()) -> None:
    """Draw a line through the points, with small marks at some epochs and a larger one at the end."""
    style: dict[str, Any] = {"color": look.colour, "marker": look.marker}
    small = [index for index, (epoch, _) in enumerate(points[:-1]) if epoch in marked]
    x, y = [epoch for epoch, _ in points], [value for _, value in points]
    axes.plot(x, y, linestyle=look.dash, label=look.label, **style, markersize=5, markevery=small or [-1])
    axes.plot(x[-1:], y[-1:], linestyle="none", **style)


def ring(axes: Axes, x: float, y: float, *, label: str = "chosen") -> None:
    """Draw the sign of the chosen candidate."""
    axes.plot([x], [y], **RING, label=label, zorder=4)


def frame(axes: Axes, *, history: History, last: int) -> None:
    """Draw an axis over all epochs; where experts are mixed, shade the warm-up and mark the end of every round."""
    axes.set(xlim=(0, last * 1.02), xlabel="epochs done")
    axes.xaxis.set_major_locator(steps(integer=True))
    axes.yaxis.set_major_locator(steps())
    axes.grid(axis="y")
    if not history.course:
        return
    warm_up, top = history.rounds[0].epoch, axes.get_xaxis_transform()
    axes.axvspan(0, warm_up, color=FAINT, alpha=0.55, linewidth=0, zorder=0)
    axes.text(warm_up / 2, 1.02, "warm-up", color=MUTED, transform=top, ha="center")
    for r in history.rounds:
        axes.axvline(r.epoch, **REDISTRIBUTION if r.handed_back else NO_REDISTRIBUTION, zorder=1)


_COLUMNS = ("epoch", "learner", "natural", "robust", "loss")


def write_curves(history: History, folder: Path) -> Path:
    """Write `curves.csv` into an existing folder and return its path: one row per learner and epoch, by epoch.

    Columns: epoch (done, from 1), learner (an expert's name, or `global`), natural and robust (validation
    accuracies in [0, 1]; empty at epochs that were not measured), loss (mean training loss; empty for the
    global learner, which is not trained itself).
    """
    rows = [_row(r.epoch, r.expert, r.validation, repr(r.loss)) for r in history.epochs]
    rows += [_row(r.epoch, GLOBAL, r.validation, "") for r in history.course]
    rows.sort(key=lambda row: row[0])
    path = folder / "curves.csv"
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_COLUMNS, *rows])
    write_atomically(path, text.getvalue().encode())
    return path


def _row(epoch: int, learner: str, validation: Measured | None, loss: str) -> tuple[int, str, str, str, str]:
    natural, robust = (repr(validation.natural.value), repr(validation.robust.value)) if validation else ("", "")
    return epoch, learner, natural, robust, loss
