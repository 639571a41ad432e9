"""Optuna's plots of a study as it went on: its history, what trials reported on the way, and the front it reached."""

import optuna
from optuna.trial import TrialState
from optuna.visualization import plot_intermediate_values, plot_optimization_history, plot_pareto_front

from pipelines.trials import StudyRecord
from pipelines.tuning.charts import BLUE, MUTED, ORANGE, PANEL, Group, chart, complete, target


def history(study: optuna.Study, record: StudyRecord) -> Group:
    """Return the values by the trials' numbers, for each objective."""
    note = "Each mark is a complete trial, in the order in which they were begun."
    if len(record.objective) == 1:
        note += " The line is the best so far."
    if not complete(study):
        return Group("history", "History", note, excuse="No trial is complete yet.")
    charts = []
    for index, name in enumerate(record.objective):
        figure = plot_optimization_history(study, target=target(record, index), target_name=name)
        for trace, colour in zip(figure.data, (BLUE, ORANGE), strict=False):
            trace.update(marker={"color": colour, "size": 8}, line={"color": colour, "width": 2, "shape": "hv"})
        figure.data = [trace for trace in figure.data if trace.x]
        figure.update_layout(xaxis_title="trial", yaxis_title=None, showlegend=False)
        charts.append(chart(f"history-{index}", figure, name, f"{name} by trial"))
    return Group("history", "History", note, tuple(charts))


def intermediate(study: optuna.Study, record: StudyRecord) -> Group:
    """Return what was reported on the way, by which trials are pruned."""
    note = "What pruning compared, by epoch: the best trial is orange, pruned ones end early and are dotted."
    if len(record.objective) > 1:
        excuse = "Trials of a study with several objectives are never pruned, and report nothing on the way."
        return Group("intermediate", "On the way", note, excuse=excuse)
    states = {trial.number: trial.state for trial in study.get_trials(deepcopy=False)}
    if not any(trial.intermediate_values for trial in study.get_trials(deepcopy=False)):
        return Group("intermediate", "On the way", note, excuse="No trial has reported anything on the way yet.")
    figure = plot_intermediate_values(study)
    for trace in figure.data:
        number = int(trace.name.removeprefix("Trial"))
        best, pruned = number == record.best, states[number] == TrialState.PRUNED
        colour = ORANGE if best else MUTED if pruned else BLUE
        trace.update(
            name=f"trial {number}",
            line={"color": colour, "width": 3 if best else 1.3, "dash": "dot" if pruned else "solid"},
            marker={"color": colour, "size": 5, "maxdisplayed": 0},
            opacity=1 if best else 0.6,
        )
    figure.data = sorted(figure.data, key=lambda trace: trace.name == f"trial {record.best}")  # on top of the others
    figure.update_layout(xaxis_title="epoch", yaxis_title=None, showlegend=False)
    drawn = chart("intermediate-0", figure, record.objective[0], "Values by epoch, a line for each trial")
    return Group("intermediate", "On the way", note, (drawn,))


def front(study: optuna.Study, record: StudyRecord) -> Group:
    """Return two objectives against each other."""
    note = "Orange trials are on the front: no other is better in one objective without being worse in the other."
    if not complete(study):
        return Group("front", "Pareto front", note, excuse="No trial is complete yet.")
    figure = plot_pareto_front(study, target_names=list(record.objective))
    best = {trial.number for trial in study.best_trials}
    others = [trial.number for trial in complete(study) if trial.number not in best]
    fronted = [trial.number for trial in complete(study) if trial.number in best]
    for trace, numbers, colour in zip(figure.data, (others, fronted), (BLUE, ORANGE), strict=True):
        # Optuna's texts hold all that a trial knows; its marks are coloured by number, with two scales.
        trace.update(text=[f"trial {number}" for number in numbers], hovertemplate="%{text}: %{x:.4f}, %{y:.4f}")
        trace.marker = {"color": colour, "size": 9, "line": {"color": PANEL, "width": 1}}
    drawn = chart("front-0", figure, " and ".join(record.objective), "Two objectives, a mark for each trial")
    return Group("front", "Pareto front", note, (drawn,))
