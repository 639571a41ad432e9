"""What the parameters of a search did: their importance, each one alone, and the most important ones in pairs."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial
from optuna.visualization import plot_contour, plot_slice
from plotly import graph_objects as go

from pipelines.trials import StudyRecord
from pipelines.tuning.charts import BLUE, PANEL, Chart, Group, chart, complete, target

CONTOURED = 3
"""Parameters that contours pair; all pairs of more would be a page of their own."""

TOP = 5
"""Trials that PED-ANOVA's documentation wants at least among the best, which it compares with all."""

_BY_TIME = {"showscale": False, "size": 9, "colorscale": [[0, PANEL], [1, BLUE]], "line": {"width": 1, "color": BLUE}}
_LONGEST, _WORD = 26, 16  # letters of a path, and of a choice, beside an axis


def importances(study: optuna.Study) -> dict[str, float]:
    """Return how much each parameter parts the best trials from all; they sum to one. Empty where nothing can be said.

    PED-ANOVA (Watanabe et al. 2023, arXiv:2304.10255) draws no random numbers, and knows conditional parameters.
    """
    trials = complete(study)
    names = [name for name in _parameters(trials) if len(_values(trials, name)) > 1]
    if not names or len({tuple(trial.values) for trial in trials}) < 2:
        return {}
    evaluator = PedAnovaImportanceEvaluator(target_quantile=min(0.5, max(0.1, TOP / len(trials))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few trials, which the page says itself
        # Named in order: Optuna's own order of equal ones changes from process to process.
        found = get_param_importances(study, evaluator=evaluator, params=names)
    return {name: float(found[name]) for name in sorted(names, key=lambda name: (-found[name], name))}


def importance(study: optuna.Study, found: Mapping[str, float]) -> Group:
    """Return a bar for each parameter."""
    count = len(complete(study))
    note = (
        f"How much each parameter parts the best trials from all {count} complete ones (PED-ANOVA); the bars sum to 1."
        " From a few dozen trials this is a hint, no measurement."
    )
    if not found:
        excuse = "Importances need two complete trials or more that differ in a parameter and in their value."
        return Group("importance", "Importance", note, excuse=excuse)
    shown = dict(reversed(list(found.items())))  # the first bar is the lowest one
    bars = go.Bar(
        x=list(shown.values()),
        y=list(shown),
        text=[f"{value:.2f}" for value in shown.values()],
        hovertemplate="%{y}: %{x:.3f}<extra></extra>",
        orientation="h",
        marker={"color": BLUE},
        textposition="auto",
        cliponaxis=False,
    )
    figure = go.Figure(bars)
    figure.update_layout(height=90 + 30 * len(shown), xaxis_range=[0, 1.08 * max(shown.values())])
    figure.update_yaxes(tickvals=list(shown), ticktext=[short(name) for name in shown])
    drawn = chart("importance-0", figure, "Share of importance", "Importance by parameter")
    return Group("importance", "Importance", note, (drawn,))


def slices(study: optuna.Study, record: StudyRecord) -> Group:
    """Return the values by each parameter alone."""
    note = "Each mark is a complete trial that has the parameter; the later, the stronger its colour."
    trials = complete(study)
    names = [name for name in _parameters(trials) if len(_values(trials, name)) > 1]
    charts: list[Chart] = []
    for name in names:
        for index, objective in enumerate(record.objective):
            figure = plot_slice(study, params=[name], target=target(record, index), target_name=objective)
            figure.update_traces(marker=_BY_TIME)
            figure.update_layout(xaxis_title=None, yaxis_title=objective)
            _unquote(figure, trials, name)
            charts.append(chart(f"slice-{len(charts)}", figure, name, f"{objective} by {name}"))
    alike = [name for name in _parameters(trials) if name not in names]
    excuse = ""
    if not trials:
        excuse = "No trial is complete yet."
    elif alike:
        excuse = f"The same in all complete trials that have it, so not drawn: {', '.join(alike)}."
    elif not names:
        excuse = "The complete trials have no parameters."
    return Group("slices", "Parameter by parameter", note, tuple(charts), excuse)


def contours(study: optuna.Study, record: StudyRecord, found: Mapping[str, float]) -> Group:
    """Return the values over pairs of the most important parameters."""
    note = (
        f"Pairs of the {CONTOURED} most important parameters. Marks are complete trials; between them, colours are"
        " interpolated, and darker is better."
    )
    trials = complete(study)
    charts: list[Chart] = []
    for x, y in combinations(list(found)[:CONTOURED], 2):
        both = [trial for trial in trials if x in trial.params and y in trial.params]
        if min(len(_values(both, x)), len(_values(both, y))) < 2:
            continue
        for index, objective in enumerate(record.objective):
            figure = plot_contour(study, params=[x, y], target=target(record, index), target_name=objective)
            figure.update_traces(
                colorbar={"title": None, "thickness": 10}, reversescale=False, selector={"type": "contour"}
            )
            figure.update_traces(marker={"size": 6}, selector={"type": "scatter"})
            for axis in (figure.layout.xaxis, figure.layout.yaxis):
                _name_choices(axis, both, axis.title.text)
                axis.title.text = short(axis.title.text)
            title = f"{x} and {y}" if len(record.objective) == 1 else f"{objective}: {x} and {y}"
            charts.append(chart(f"contour-{len(charts)}", figure, title, f"{objective} over {x} and {y}"))
    excuse = "" if charts else "Contours need two parameters that both differ among complete trials which have both."
    return Group("contours", "Pairs of parameters", note, tuple(charts), excuse)


def short(name: str) -> str:
    """Return a dotted path that fits beside an axis: its end says most."""
    return name if len(name) <= _LONGEST else "…" + name[1 - _LONGEST :]


def _parameters(trials: Iterable[FrozenTrial]) -> list[str]:
    """Return all parameters that any of the trials has, in alphabetical order."""
    return sorted({name for trial in trials for name in trial.params})


def _values(trials: Sequence[FrozenTrial], name: str) -> set[Any]:
    return {trial.params[name] for trial in trials if name in trial.params}


def _choices(trials: Sequence[FrozenTrial], name: str) -> list[Any]:
    """Return all choices that a parameter has, in any of the trials; none where it is a number."""
    kinds = [trial.distributions[name] for trial in trials if name in trial.distributions]
    return list(dict.fromkeys(c for kind in kinds if isinstance(kind, CategoricalDistribution) for c in kind.choices))


def _unquote(figure: go.Figure, trials: Sequence[FrozenTrial], name: str) -> None:
    """Write choices as they are called: Optuna's slices write them as Python would."""
    called = {repr(choice): str(choice) for choice in _choices(trials, name)}
    if called:
        for trace in figure.data:
            trace.x = [called[x] for x in trace.x]
        figure.update_xaxes(categoryarray=list(called.values()))
        _name_choices(figure.layout.xaxis, trials, name)


def _name_choices(axis: go.layout.XAxis | go.layout.YAxis, trials: Sequence[FrozenTrial], name: str) -> None:
    """Give choices with long names no more room than others; the whole name shows when pointing at a mark."""
    called = [str(choice) for choice in _choices(trials, name)]
    if called:
        axis.tickvals = called
        axis.ticktext = [word if len(word) <= _WORD else word[: _WORD - 1] + "…" for word in called]
