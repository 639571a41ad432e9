"""The trials of a search in the trade-off plane: natural against robust accuracy on the validation split."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from plotly import graph_objects as go

from generalist.records import Measured
from pipelines.trials import StudyRecord, TrialRecord
from pipelines.tuning.charts import BLUE, GREEN, INK, MUTED, ORANGE, PANEL, RULE, Group, chart

_STEPS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
_LEVELS = 8
"""Curves of equal harmonic mean, at most, at multiples of one of those steps."""

_SAMPLES = 40
_HOVER = "%{text}<br>natural %{x:.1%}, robust %{y:.1%}<extra></extra>"


def plane(record: StudyRecord) -> Group:
    """Return all complete trials, the front among them, their best mixtures, and the finalists as judged anew."""
    trials = [trial for trial in record.trials if trial.state == "complete" and trial.validation is not None]
    if not trials:
        return Group("plane", "The trade-off plane", "", excuse="No trial has been measured to its end yet.")
    best = {trial.number for trial in undominated(trials)}
    figure = go.Figure()
    points = [
        *(trial.validation for trial in trials if trial.validation is not None),
        *(trial.remix.validation for trial in trials if trial.remix is not None),
        *(finalist.validation for finalist in record.finalists),
    ]
    x, y = _span(m.natural.value for m in points), _span(m.robust.value for m in points)
    _equal_means(figure, x, y)
    _moves(figure, trials)
    _marks(figure, "trials", [_told(t) for t in trials if t.number not in best], color=BLUE, size=9)
    on_front = sorted((_told(t) for t in trials if t.number in best), key=lambda told: told[1].natural.value)
    _marks(figure, "front", on_front, joined=True, color=ORANGE, size=11)
    remixed = [(f"trial {t.number} mixed again", t.remix.validation) for t in trials if t.remix is not None]
    _marks(figure, "mixed again", remixed, color=MUTED, size=8, symbol="circle-open")
    finalists = [(f"trial {f.number} by {f.attack}", f.validation) for f in record.finalists]
    _marks(figure, "finalists", finalists, color=GREEN, size=11, symbol="diamond")
    chosen = [_told(trial) for trial in trials if trial.number == record.best]
    _marks(figure, "chosen", chosen, color=INK, size=19, symbol="circle-open")
    legend = {"orientation": "h", "yanchor": "bottom", "y": 1.01, "xanchor": "left", "x": 0}
    figure.update_layout(height=480, legend=legend, xaxis_title="natural accuracy →", yaxis_title="robust accuracy →")
    figure.update_layout(margin={"l": 8, "r": 48, "t": 12, "b": 8})
    figure.update_xaxes(range=x, tickformat=".1~%", showgrid=False)
    figure.update_yaxes(range=y, tickformat=".1~%", showgrid=False)
    title = "Validation split: natural and robust accuracy"
    drawn = chart("plane-0", figure, title, "Natural accuracy across, robust accuracy up, a mark for each trial")
    return Group("plane", "The trade-off plane", _note(record), (drawn,))


def undominated(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the trials that no other beats in one accuracy without losing in the other."""

    def beaten(m: Measured, by: Measured) -> bool:
        better = by.natural.value - m.natural.value, by.robust.value - m.robust.value
        return min(better) >= 0 and max(better) > 0

    measured = [trial.validation for trial in trials if trial.validation is not None]
    return [
        trial
        for trial in trials
        if trial.validation is not None and not any(beaten(trial.validation, other) for other in measured)
    ]


def _note(record: StudyRecord) -> str:
    note = (
        "Right is better on clean images, up is better under attack; thin curves join points of equal harmonic mean,"
        " which is written at their right end. No trial beats one on the front in both."
    )
    if any(trial.remix for trial in record.trials):
        note += " A dotted line leads to what other mixing weights would make of the same trial."
    if record.finalists:
        note += " Diamonds are finalists by the stronger attack, so they lie lower than their trials."
    return note


def _told(trial: TrialRecord) -> tuple[str, Measured]:
    assert trial.validation is not None
    return f"trial {trial.number}", trial.validation


def _marks(
    figure: go.Figure, name: str, points: Sequence[tuple[str, Measured]], *, joined: bool = False, **marker: Any
) -> None:
    if not points:
        return
    width = 2 if str(marker.get("symbol", "")).endswith("open") else 1
    edge = marker["color"] if width == 2 else PANEL
    figure.add_scatter(
        x=[m.natural.value for _, m in points],
        y=[m.robust.value for _, m in points],
        text=[text for text, _ in points],
        name=name,
        mode="lines+markers" if joined else "markers",
        marker={**marker, "line": {"width": width, "color": edge}},
        line={"color": marker["color"], "width": 1.5},
        hovertemplate=_HOVER,
    )


def _moves(figure: go.Figure, trials: Sequence[TrialRecord]) -> None:
    """Draw a line from each trial to its best mixture."""
    x: list[float | None] = []
    y: list[float | None] = []
    for trial in trials:
        if trial.validation is not None and trial.remix is not None:
            ends = trial.validation, trial.remix.validation
            x += [*(m.natural.value for m in ends), None]
            y += [*(m.robust.value for m in ends), None]
    if x:
        line = {"color": MUTED, "width": 1, "dash": "dot"}
        figure.add_scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", showlegend=False)


def _equal_means(figure: go.Figure, x: tuple[float, float], y: tuple[float, float]) -> None:
    """Draw curves of equal harmonic mean h: robust = h · natural / (2 · natural - h)."""
    low, high = (2 * a * b / (a + b) if a + b else 0.0 for a, b in zip(x, y, strict=True))
    step = next((step for step in _STEPS if (high - low) / step <= _LEVELS), _STEPS[-1])
    for level in (step * count for count in range(math.ceil(low / step), math.floor(high / step) + 1)):
        across = [x[0] + (x[1] - x[0]) * index / _SAMPLES for index in range(_SAMPLES + 1)]
        curve = [(a, level * a / (2 * a - level)) for a in across if 2 * a > level]
        line = {"color": RULE, "width": 1}
        natural, robust = ([point[axis] for point in curve] for axis in (0, 1))
        figure.add_scatter(x=natural, y=robust, mode="lines", line=line, hoverinfo="skip", showlegend=False)
        if y[0] <= robust[-1] <= y[1]:
            place = {"x": x[1], "y": robust[-1], "xanchor": "left", "showarrow": False}
            figure.add_annotation(text=f"{100 * level:.3g}%", font={"size": 11}, **place)


def _span(values: Iterable[float]) -> tuple[float, float]:
    """Return an axis around values, however close together."""
    told = list(values)
    low, high = min(told), max(told)
    room = max(0.08 * (high - low), 0.005)
    return max(0.0, low - room), min(1.02, high + room)
