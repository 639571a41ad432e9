"""Charts for the page of a search: plotly's figures by one template in the page's colours, with their titles apart."""

import json
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from plotly import graph_objects as go

INK, MUTED, RULE = "var(--ink)", "var(--muted)", "var(--rule)"
BLUE, ORANGE, GREEN = "var(--c0)", "var(--c1)", "var(--c2)"
"""The page's own colours; its script puts their values in, so that charts follow its dark mode."""

_AXIS = {"gridcolor": RULE, "linecolor": MUTED, "zeroline": False, "automargin": True}
_TEMPLATE = go.layout.Template(layout={"colorway": [BLUE, ORANGE, GREEN], "xaxis": _AXIS, "yaxis": _AXIS})

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
    """Dress a figure of plotly's: its title stands above it, where it can wrap."""
    figure.update_layout(template=_TEMPLATE, title=None)
    figure_json = json.dumps(_escape(json.loads(figure.to_json())), sort_keys=True).replace("<", "\\u003c")
    return Chart(f"plot-{place}", title, label, Markup(figure_json))  # noqa: S704  without "<" it ends no element


def _escape(spec: Any, key: str = "") -> Any:
    """Return texts for plotly.js, which takes some HTML in them for its own."""
    match spec:
        case dict():
            return {name: _escape(value, name) for name, value in spec.items()}
        case list():
            return [_escape(value, key) for value in spec]
        case str() if key in _TEXTS:
            return spec.replace("<", "&lt;")
        case _:
            return spec
