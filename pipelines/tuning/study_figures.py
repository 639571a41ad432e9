"""The charts of a search: Optuna's figures, or sentences that say why there are none.

The importance of parameters is PED-ANOVA's (Watanabe et al. 2023, arXiv:2304.10255), which draws no random numbers, and
knows conditional parameters.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import (
    plot_contour,
    plot_intermediate_values,
    plot_optimization_history,
    plot_pareto_front,
    plot_slice,
)
from plotly import graph_objects as go

from generalist.records import Measured
from pipelines.trial_records import StudyRecord, TrialRecord
from pipelines.tuning.charts import BLUE, GREEN, INK, MUTED, ORANGE, Chart, Group, chart

CONTOURED = 3
"""Parameters that contours pair; all pairs of more would be a page of their own."""

TOP = 5
"""Trials that PED-ANOVA's documentation wants at least among the best, which it compares with all."""


def groups(study: optuna.Study, record: StudyRecord) -> list[Group]:
    """Return all charts, in the order of the page.

    Args:
        study: Optuna's; its objectives are maximised.
        record: of the same trials.
    """
    shares = importances(study)
    return [
        _plane(record),
        *([_front(study, record)] if len(record.objective) > 1 else []),
        _history(study, record),
        _importance(study, shares),
        _slices(study, record),
        _contours(study, record, shares),
        _intermediate(study, record),
    ]


def importances(study: optuna.Study) -> dict[str, float]:
    """Return how much each parameter parts the best trials from all; they sum to one. Empty where none can be told."""
    trials = _complete_trials(study)
    names = [name for name, values in _values(trials).items() if len(values) > 1]
    if not names or len({tuple(trial.values) for trial in trials}) < 2:
        return {}
    evaluator = PedAnovaImportanceEvaluator(target_quantile=min(0.5, max(0.1, TOP / len(trials))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few trials, which the page says itself
        # Named in order: Optuna's own order of equal ones changes from process to process.
        shares = get_param_importances(study, evaluator=evaluator, params=names)
    return {name: float(shares[name]) for name in sorted(names, key=lambda name: (-shares[name], name))}


def undominated(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the trials that no other beats in one accuracy without losing in the other."""
    places = {trial.number: _place(trial.validation) for trial in trials if trial.validation is not None}

    def beaten(place: tuple[float, float]) -> bool:
        return any(one >= place[0] and other >= place[1] and (one, other) != place for one, other in places.values())

    return [trial for trial in trials if trial.number in places and not beaten(places[trial.number])]


def _plane(record: StudyRecord) -> Group:
    """Draw all complete trials, the front among them, their best mixtures, and the finalists as judged anew."""
    note = (
        "Right is better on clean images, up is better under attack. No trial beats one on the front in both; finalists"
        " are judged by the stronger attack, so they lie lower than their trials."
    )
    trials = [trial for trial in record.trials if trial.state == "complete" and trial.validation is not None]
    if not trials:
        return Group("plane", "The trade-off plane", note, excuse="No trial has been measured to its end yet.")
    best = {trial.number for trial in undominated(trials)}
    marks = {trial.number: (f"trial {trial.number}", trial.validation) for trial in trials}
    mixed = [(f"trial {t.number} mixed again", t.remix.validation) for t in trials if t.remix is not None]
    judged = [(f"trial {finalist.number} by {finalist.attack}", finalist.validation) for finalist in record.finalists]
    figure = go.Figure()
    for name, points, marker in (
        ("trials", [mark for number, mark in marks.items() if number not in best], {"color": BLUE}),
        ("front", [mark for number, mark in marks.items() if number in best], {"color": ORANGE, "size": 11}),
        ("mixed again", mixed, {"color": MUTED, "symbol": "circle-open"}),
        ("finalists", judged, {"color": GREEN, "size": 11, "symbol": "diamond"}),
        ("chosen", [marks[n] for n in marks if n == record.best], {"color": INK, "size": 19, "symbol": "circle-open"}),
    ):
        if points:
            x, y = zip(*(_place(measured) for _, measured in points if measured), strict=True)
            texts = [text for text, _ in points]
            hover = "%{text}<br>natural %{x:.1%}, robust %{y:.1%}<extra></extra>"
            figure.add_scatter(x=x, y=y, text=texts, name=name, mode="markers", marker=marker, hovertemplate=hover)
    figure.update_layout(height=480, xaxis_title="natural accuracy →", yaxis_title="robust accuracy →")
    figure.update_xaxes(tickformat=".1~%")
    figure.update_yaxes(tickformat=".1~%")
    title = "Validation split: natural and robust accuracy"
    label = "Natural accuracy across, robust accuracy up, a mark for each trial"
    return Group("plane", "The trade-off plane", note, (chart("plane-0", figure, title, label),))


def _front(study: optuna.Study, record: StudyRecord) -> Group:
    note = "Red trials are on the front: no other is better in one objective without being worse in the other."
    if not _complete_trials(study):
        return Group("front", "Pareto front", note, excuse="No trial is complete yet.")
    figure = plot_pareto_front(study, target_names=list(record.objective))
    figure.update_traces(hovertemplate="%{x:.4f}, %{y:.4f}<extra></extra>", text=None)  # else all that a trial knows
    drawn = chart("front-0", figure, " and ".join(record.objective), "Two objectives, a mark for each trial")
    return Group("front", "Pareto front", note, (drawn,))


def _history(study: optuna.Study, record: StudyRecord) -> Group:
    note = "Each mark is a complete trial, in the order in which they were begun."
    if not _complete_trials(study):
        return Group("history", "History", note, excuse="No trial is complete yet.")
    charts = []
    for index, name in enumerate(record.objective):
        figure = plot_optimization_history(study, target=_target(record, index), target_name=name)
        charts.append(chart(f"history-{index}", figure, name, f"{name} by trial"))
    return Group("history", "History", note, tuple(charts))


def _importance(study: optuna.Study, shares: Mapping[str, float]) -> Group:
    note = (
        f"How much each parameter parts the best trials from all {len(_complete_trials(study))} complete ones"
        " (PED-ANOVA); the bars sum to 1. From a few dozen trials this is a hint, no measurement."
    )
    if not shares:
        excuse = "Importances need two complete trials or more that differ in a parameter and in their value."
        return Group("importance", "Importance", note, excuse=excuse)
    # Not by Optuna's plot, which computes them anew, in an order that changes from process to process.
    figure = go.Figure(go.Bar(x=list(shares.values()), y=list(shares), orientation="h", texttemplate="%{x:.2f}"))
    figure.update_layout(height=90 + 30 * len(shares), yaxis_autorange="reversed")
    drawn = chart("importance-0", figure, "Share of importance", "Importance by parameter")
    return Group("importance", "Importance", note, (drawn,))


def _slices(study: optuna.Study, record: StudyRecord) -> Group:
    note = "Each mark is a complete trial that has the parameter; the later, the stronger its colour."
    values = _values(_complete_trials(study))
    charts: list[Chart] = []
    for name in (name for name in values if len(values[name]) > 1):
        for index, objective in enumerate(record.objective):
            figure = plot_slice(study, params=[name], target=_target(record, index), target_name=objective)
            charts.append(chart(f"slice-{len(charts)}", figure, name, f"{objective} by {name}"))
    alike = ", ".join(name for name in values if len(values[name]) == 1)
    excuse = f"The same in all complete trials that have it, so not drawn: {alike}." if alike else ""
    if not charts and not alike:
        excuse = "No complete trial has a parameter."
    return Group("slices", "Parameter by parameter", note, tuple(charts), excuse)


def _contours(study: optuna.Study, record: StudyRecord, shares: Mapping[str, float]) -> Group:
    note = (
        f"Pairs of the {CONTOURED} most important parameters. Marks are complete trials; between them, colours are"
        " interpolated, and darker is better."
    )
    charts: list[Chart] = []
    for x, y in combinations(list(shares)[:CONTOURED], 2):
        both = _values([trial for trial in _complete_trials(study) if {x, y} <= trial.params.keys()])
        if not both or min(len(both[x]), len(both[y])) < 2:
            continue
        for index, objective in enumerate(record.objective):
            figure = plot_contour(study, params=[x, y], target=_target(record, index), target_name=objective)
            figure.update_traces(reversescale=False, selector={"type": "contour"})  # else lighter, with a target
            charts.append(chart(f"contour-{len(charts)}", figure, f"{x} and {y}", f"{objective} over {x} and {y}"))
    excuse = "" if charts else "Contours need two parameters that both differ among complete trials which have both."
    return Group("contours", "Pairs of parameters", note, tuple(charts), excuse)


def _intermediate(study: optuna.Study, record: StudyRecord) -> Group:
    note = "What pruning compared, by epoch, a line for each trial; pruned ones end early."
    excuse = ""
    if len(record.objective) > 1:
        excuse = "Trials of a study with several objectives are never pruned, and report nothing on the way."
    elif not any(trial.intermediate_values for trial in study.get_trials(deepcopy=False)):
        excuse = "No trial has reported anything on the way yet."
    if excuse:
        return Group("intermediate", "On the way", note, excuse=excuse)
    figure = plot_intermediate_values(study)
    figure.update_layout(xaxis_title="epoch", showlegend=False)
    drawn = chart("intermediate-0", figure, record.objective[0], "Values by epoch, a line for each trial")
    return Group("intermediate", "On the way", note, (drawn,))


def _complete_trials(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _values(trials: Sequence[FrozenTrial]) -> dict[str, set[Any]]:
    """Return the values of every parameter that any of the trials has, in alphabetical order."""
    names = sorted({name for trial in trials for name in trial.params})
    return {name: {trial.params[name] for trial in trials if name in trial.params} for name in names}


def _target(record: StudyRecord, index: int) -> Callable[[FrozenTrial], float] | None:
    """Return what Optuna wants for one of several objectives, and not for a single one."""
    return None if len(record.objective) == 1 else lambda trial: trial.values[index]


def _place(measured: Measured) -> tuple[float, float]:
    return measured.natural.value, measured.robust.value
