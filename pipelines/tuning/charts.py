"""Charts for the page of a search: plotly's figures in the page's dress, or sentences that say why there are none."""

import json
from dataclasses import dataclass
from typing import Any

import optuna
from markupsafe import Markup
from optuna.trial import FrozenTrial, TrialState
from plotly import graph_objects as go

from pipelines.trials import StudyRecord

INK, MUTED, RULE, PANEL = "var(--ink)", "var(--muted)", "var(--rule)", "var(--panel)"
BLUE, ORANGE, GREEN = "var(--c0)", "var(--c1)", "var(--c2)"
"""The page's own colours; its script puts their values in, so that charts follow its dark mode."""

_TEXTS = {"x", "y", "text", "name", "ticktext", "tickvals", "categoryarray"}


@dataclass(frozen=True)
class Chart:
    """A chart for plotly.js.

    Attributes:
        id: of its place on the page.
        title: for people.
        label: what is shown, for readers who do not see it.
        spec: data and layout as JSON that may stand in a script element.
    """

    id: str
    title: str
    label: str
    spec: Markup


@dataclass(frozen=True)
class Group:
    """Charts on one question, or the reason why there are none.

    Attributes:
        id: of its section.
        title: for people.
        note: how to read it.
        charts: none is fine where there is an excuse.
        excuse: what is missing, as a sentence.
    """

    id: str
    title: str
    note: str
    charts: tuple[Chart, ...] = ()
    excuse: str = ""


def chart(place: str, figure: go.Figure, title: str, label: str) -> Chart:
    """Return a figure of plotly's in the page's dress."""
    # Margins that grow with labels; names of the objectives stand above the charts, where they can wrap.
    figure.update_layout(title=None)
    figure.update_xaxes(gridcolor=RULE, zeroline=False, linecolor=MUTED, automargin=True)
    figure.update_yaxes(gridcolor=RULE, zeroline=False, automargin=True, title_standoff=10)
    spec = json.loads(figure.to_json())
    spec["layout"].pop("template", None)  # plotly's own look
    told = json.dumps(_escaped(spec), ensure_ascii=True, sort_keys=True).replace("<", "\\u003c")
    return Chart(f"plot-{place}", title, label, Markup(told))  # noqa: S704  without "<" it ends no element


def complete(study: optuna.Study) -> list[FrozenTrial]:
    """Return the complete trials."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def target(record: StudyRecord, index: int) -> Any:
    """Return what Optuna wants for one of several objectives, and not for a single one."""
    return None if len(record.objective) == 1 else lambda trial: trial.values[index]


def _escaped(spec: Any, key: str = "") -> Any:
    """Return texts for plotly.js, which takes some HTML in them for its own."""
    match spec:
        case dict():
            return {name: _escaped(value, name) for name, value in spec.items()}
        case list():
            return [_escaped(value, key) for value in spec]
        case str() if key in _TEXTS:
            return spec.replace("<", "&lt;")
        case _:
            return spec
