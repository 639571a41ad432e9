"""A search on one self-contained HTML page: the same study and record give the same bytes."""

from datetime import timedelta
from functools import cache

import optuna
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from generalist.report.styles import interval, percent
from pipelines.trial_records import StudyRecord, TrialRecord
from pipelines.tuning.study_figures import groups, undominated

BEST = 10
"""Trials that the first table shows; another one, folded, has all."""


def build(study: optuna.Study, record: StudyRecord) -> str:
    """Return the page: what was found, what it cost, and Optuna's plots, drawn by a plotly.js that is part of the page.

    Args:
        study: Optuna's; its objectives are maximised.
        record: of the same trials.
    """
    return (
        _environment()
        .get_template("tuning.html.j2")
        .render(
            record=record,
            best=record.chosen,
            finalists={finalist.number: finalist for finalist in record.finalists},
            ranked=ranked(record)[:BEST],
            names=sorted({name for trial in record.trials for name in trial.params}),
            groups=groups(study, record),
            plotly=Markup(get_plotlyjs()),  # noqa: S704  plotly's own file
        )
    )


def ranked(record: StudyRecord) -> list[TrialRecord]:
    """Return complete trials, the best first: by value, or the front by its first objective before all others.

    Finalists come in their own order at the top, as they were judged by the stronger attack.
    """
    complete = [trial for trial in record.trials if trial.state == "complete"]
    judged = [finalist.number for finalist in record.finalists]
    front = {trial.number for trial in undominated(complete)} if len(record.objective) > 1 else set()

    def place(trial: TrialRecord) -> tuple[int, bool, tuple[float, ...], int]:
        order = judged.index(trial.number) if trial.number in judged else len(judged)
        return order, trial.number not in front, tuple(-value for value in trial.values), trial.number

    return sorted(complete, key=place)


def number(value: object) -> str:
    """Return a parameter's value for people: `0.001`, `3`, `sgd`."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def path(name: str) -> Markup:
    """Return a dotted path that may break after its dots."""
    return Markup(".<wbr>").join(name.split("."))  # which escapes the parts


def duration(seconds: float) -> str:
    """Return hours, minutes and seconds: `0:03:05`."""
    return str(timedelta(seconds=round(seconds)))


@cache
def _environment() -> Environment:
    environment = Environment(
        # The report's style and macros: pages of one project look alike.
        loader=ChoiceLoader([PackageLoader("pipelines.tuning"), PackageLoader("generalist.report")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, interval=interval, number=number, duration=duration, path=path)
    return environment
