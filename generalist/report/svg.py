"""Charts by matplotlib as inline SVG, in the colours and the font of the page.

Text stays text, and colours become the page's CSS variables, so that a chart follows its dark mode.
Sizes are points of a figure about as wide as a phone: labels stay readable there and grow on a desktop.
"""

import io
import math
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

COLOURS = {
    "ink": "#1c1f24",
    "muted": "#5c636e",
    "panel": "#ffffff",
    "rule": "#dfe2e6",
    "faint": "#eef0f2",
    "c0": "#0072b2",
    "c1": "#c24e00",
    "c2": "#00805d",
    "c3": "#a8527f",
}
"""The colours that charts are drawn in, by the name of the page's variable that takes their place."""

INK, MUTED, PANEL, RULE, FAINT = (COLOURS[name] for name in ("ink", "muted", "panel", "rule", "faint"))
EXPERTS = tuple(COLOURS[f"c{index}"] for index in range(4))

WIDTH, LEFT, TOP, BOTTOM = 400.0, 46.0, 20.0, 40.0
INCH = 72.0
"""Points per inch."""

DOTS = 180.0
"""Per inch of a picture of its own."""

SMALL = 10.5

STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dollar in a name is a dollar
    "text.color": INK,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that texts are measured alike everywhere
    "font.size": 11.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": MUTED,
    "axes.titlesize": "medium",
    "axes.titley": 1.0,
    "axes.axisbelow": True,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": FAINT,
    "legend.edgecolor": RULE,
    "legend.facecolor": PANEL,
    "legend.fontsize": SMALL,
    "legend.framealpha": 0.85,
    "legend.handlelength": 1.6,
    "lines.linewidth": 1.8,
    "lines.markeredgecolor": PANEL,
    "lines.markeredgewidth": 0.7,
    "lines.markersize": 8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "ytick.major.size": 0,
}

MATPLOTLIB = threading.Lock()
"""Its settings belong to the process: one thread draws at a time, and puts them back."""


def chart(draw: Callable[[Axes], object], *, label: str, height: float = 250.0, right: float = 14.0) -> Markup:
    """Return a chart with axes.

    Args:
        draw: draws on the axes.
        label: what is shown, for readers who do not see it; unique on the page.
        height: in points; the width is 400.
        right: points to the right of the axes.
    """
    attributes = {"class": "chart", "role": "img", "aria-label": label}
    return _inline(lambda figure: draw(_axes(figure, height, right)), (WIDTH, height), attributes, salt=label)


def picture(draw: Callable[[Axes], object], *, height: float, right: float, below: float) -> bytes:
    """Return a chart of its own as the bytes of a PNG file; its arguments are those of `chart`, and points below it."""
    file = io.BytesIO()
    with MATPLOTLIB, style.context(["default", STYLE]):
        figure = Figure(figsize=(WIDTH / INCH, height / INCH), facecolor=PANEL)
        FigureCanvasAgg(figure)
        draw(_axes(figure, height, right, bottom=BOTTOM + below))
        figure.savefig(file, format="png", dpi=DOTS, metadata={"Software": None})
    return file.getvalue()


def _axes(figure: Figure, height: float, right: float, *, bottom: float = BOTTOM) -> Axes:
    return figure.add_axes((LEFT / WIDTH, bottom / height, 1 - (LEFT + right) / WIDTH, 1 - (bottom + TOP) / height))


def swatch(*lines: Mapping[str, Any], place: str) -> Markup:
    """Return a legend's sign.

    Args:
        lines: arguments of `Line2D`, on the unit square.
        place: where it stands: the same sign in the same place has the same ids.
    """

    def draw(figure: Figure) -> None:
        for line in lines:
            figure.add_artist(Line2D(**line))

    return _inline(draw, (28.0, 14.0), {"class": "swatch", "aria-hidden": "true"}, salt=place)


def shares(values: Iterable[float]) -> tuple[float, float]:
    """Return the limits of an axis around some percentages: inside 0 to 100, at least 2 apart."""
    numbers = list(values) or [0.0, 100.0]
    low, high = min(numbers), max(numbers)
    margin = max(0.06 * (high - low), 2 - (high - low) / 2)
    return max(0.0, low - margin), min(100.0, high + margin)


def from_zero(values: Iterable[float]) -> tuple[float, float]:
    """Return the limits of an axis from 0 to just above the largest finite one of some non-negative numbers."""
    return 0.0, 1.06 * max(filter(math.isfinite, values), default=0.0) or 1.0


def steps(*, most: int = 8, integer: bool = False) -> MaxNLocator:
    """Return ticks at multiples of 1, 2 or 5 times a power of ten, with at most so many steps between them."""
    return MaxNLocator(nbins=most, steps=[1, 2, 5, 10], integer=integer)


def percentages() -> StrMethodFormatter:
    """Return labels such as `98 %`."""
    return StrMethodFormatter("{x:.10g}\u00a0%")


def _inline(
    draw: Callable[[Figure], object], size: tuple[float, float], attributes: dict[str, str], *, salt: str
) -> Markup:
    """Draw on a figure (width, height in points); figures of different salt share no ids."""
    file = io.BytesIO()
    with MATPLOTLIB, style.context(["default", STYLE]):
        matplotlib.rcParams["svg.hashsalt"] = salt
        figure = Figure(figsize=(size[0] / INCH, size[1] / INCH))
        FigureCanvasSVG(figure)
        draw(figure)
        figure.savefig(file, format="svg", metadata={"Date": None})
    root = _cleaned(ElementTree.fromstring(file.getvalue()))  # noqa: S314  matplotlib wrote it
    root.attrib = {"viewBox": "0 0 {:g} {:g}".format(*size)} | attributes
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # noqa: S704  ElementTree has escaped it


def _cleaned(node: ElementTree.Element) -> ElementTree.Element:
    """Return the element as HTML has it, without namespaces, and without what a page does not need.

    That is: metadata; styles for every element of the page (they stand in its style sheet); ids of groups
    (the same in each chart); clipping (nothing is drawn outside the axes).
    """
    attributes = {_local(name): value for name, value in node.attrib.items() if _local(name) != "clip-path"}
    if _local(node.tag) == "g":
        attributes.pop("id", None)
    if "style" in attributes:
        attributes["style"] = re.sub("#[0-9a-f]{6}", _variable, attributes["style"])
    made = ElementTree.Element(_local(node.tag), attributes)
    made.text = (node.text or "").strip()
    made.extend(_cleaned(child) for child in node if _local(child.tag) not in {"metadata", "style", "clipPath"})
    return made


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _variable(colour: re.Match[str]) -> str:
    name = next((name for name, value in COLOURS.items() if value == colour[0]), None)
    return f"var(--{name})" if name else colour[0]
