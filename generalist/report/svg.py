"""A small chart in SVG: two axes, lines, marks, texts.

The text is text and the colours are CSS variables of the page, so a chart follows its dark mode and is
the same bytes each time. Sizes are units of a view box about as wide as a phone, so that labels
stay readable there and grow on a desktop.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
from markupsafe import Markup

Point = tuple[float, float]
Box = tuple[float, float, float, float]

WIDTH = 400.0
LEFT, RIGHT, TOP, BOTTOM = 42.0, 18.0, 18.0, 36.0
CHARACTER, LINE = 6.8, 12.0
"""Rough size of one character in the charts' font, on the large side: enough to keep labels apart."""

ANCHORS = {"start": 0.0, "middle": 0.5, "end": 1.0}
"""SVG's `text-anchor`, and the part of the text left of it."""

NEAR = ((1, 0, "start"), (-1, 0, "end"), (0, -1, "middle"), (0, 1, "middle"))
DIAGONAL = ((0.7, -0.7, "start"), (-0.7, -0.7, "end"), (0.7, 0.7, "start"), (-0.7, 0.7, "end"))
FAR = tuple((1.5 * dx, 1.8 * dy, anchor) for dx, dy, anchor in DIAGONAL)
PLACES = NEAR + DIAGONAL + FAR
"""Places of a label about its point, the best first: across and up in gaps, and its anchor."""

CORNERS = {"circle": 0, "square": 4, "triangle": 3, "diamond": 4, "pentagon": 5}
TURN = {"square": math.pi / 4}


@dataclass(frozen=True)
class Scale:
    """A linear axis from `low` to `high` with labelled ticks."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]

    @classmethod
    def of_shares(cls, values: Iterable[float], *, least: int = 4) -> "Scale":
        """Around shares in [0, 1], shown in per cent; never narrower than 4 points, if there is room below 1."""
        low, high = _extent(values)
        margin = max(0.06 * (high - low), 0.02 - (high - low) / 2)
        low, high = max(0.0, low - margin), min(1.0, high + margin)
        return cls(low, high, tuple((tick, f"{100 * tick:.10g} %") for tick in ticks(low, high, least=least)))

    @classmethod
    def from_zero(cls, values: Iterable[float]) -> "Scale":
        """From 0 to just above the largest of some non-negative numbers."""
        high = _extent(values)[1] * 1.06 or 1.0
        return cls(0.0, high, tuple((tick, f"{tick:.10g}") for tick in ticks(0.0, high)))

    @classmethod
    def of_epochs(cls, last: int) -> "Scale":
        """From 0 epochs done to `last`, with room for the marks there; ticks at whole epochs."""
        whole = sorted({round(tick) for tick in ticks(0.0, float(last))})
        return cls(0.0, last * 1.02, tuple((float(tick), str(tick)) for tick in whole))

    def share(self, value: float) -> float:
        """Where a value lies: 0 at `low`, 1 at `high`."""
        return (value - self.low) / (self.high - self.low)


def _extent(values: Iterable[float]) -> Point:
    finite = [value for value in values if math.isfinite(value)]
    return (min(finite), max(finite)) if finite else (0.0, 1.0)


def ticks(low: float, high: float, *, least: int = 4) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten: `least` steps fit in, and not many more."""
    widest = (high - low) / least
    power = 10.0 ** math.floor(math.log10(widest))
    step = max(power * factor for factor in (1, 2, 5) if power * factor <= widest * (1 + 1e-9))
    return [step * index for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


class Chart:
    """Draws on one pair of axes; `markup()` hands the SVG over."""

    def __init__(
        self,
        x: Scale,
        y: Scale,
        *,
        label: str,
        x_title: str,
        y_title: str = "",
        height: float = 250.0,
        lines: bool = True,
    ) -> None:
        self.x, self.y, self.height, self.lines = x, y, height, lines
        self.taken: list[Box] = []
        self.root = ElementTree.Element(
            "svg", {"viewBox": f"0 0 {WIDTH:g} {height:g}", "role": "img", "aria-label": label, "class": "chart"}
        )
        self._axes(x_title, y_title)

    def at(self, point: Point) -> Point:
        """From values to view box units."""
        return (
            LEFT + self.x.share(point[0]) * (WIDTH - LEFT - RIGHT),
            self.height - BOTTOM - self.y.share(point[1]) * (self.height - TOP - BOTTOM),
        )

    def line(self, points: Sequence[Point], style: str) -> None:
        """Join points; a point that is not a finite number makes a gap."""
        path, pen = [], "M"
        for point in points:
            if not all(map(math.isfinite, point)):
                pen = "M"
                continue
            path.append("{}{:.1f} {:.1f}".format(pen, *self.at(point)))
            pen = "L"
        if len(path) > 1:
            self._add("path", {"d": "".join(path), "class": f"line {style}"})

    def mark(self, point: Point, shape: str, style: str, *, radius: float = 4.0, tooltip: str = "") -> None:
        """A circle or a regular polygon, with a text shown on hover."""
        if not all(map(math.isfinite, point)):
            return
        x, y = self.at(point)
        self.taken.append((x - radius, y - radius, x + radius, y + radius))
        node = self._add("path", {"d": outline(shape, (x, y), radius), "class": f"mark {style}"})
        if tooltip:
            ElementTree.SubElement(node, "title").text = tooltip

    def segment(self, start: Point, end: Point, style: str) -> None:
        """A straight line between two points."""
        (x1, y1), (x2, y2) = self.at(start), self.at(end)
        self._add("path", {"d": f"M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}", "class": style})

    def cross(self, point: Point, across: Point, up: Point, style: str) -> None:
        """An interval in each direction, which labels then avoid."""
        self.segment((across[0], point[1]), (across[1], point[1]), style)
        self.segment((point[0], up[0]), (point[0], up[1]), style)
        self.keep_clear([(across[0], point[1]), (across[1], point[1])])
        self.keep_clear([(point[0], up[0]), (point[0], up[1])])

    def keep_clear(self, points: Sequence[Point]) -> None:
        """Let later labels avoid the lines that join these points."""
        for (x1, y1), (x2, y2) in pairwise(map(self.at, points)):
            parts = max(1, round(math.hypot(x2 - x1, y2 - y1) / 4))
            for index in range(parts + 1):
                x, y = x1 + (x2 - x1) * index / parts, y1 + (y2 - y1) * index / parts
                self.taken.append((x - 2, y - 2, x + 2, y + 2))

    def column(self, left: float, right: float, style: str, *, tooltip: str = "") -> None:
        """The whole height of the chart between two x values."""
        (x1, top), (x2, bottom) = self.at((left, self.y.high)), self.at((right, self.y.low))
        box = {"x": f"{x1:.1f}", "y": f"{top:.1f}", "width": f"{x2 - x1:.1f}", "height": f"{bottom - top:.1f}"}
        node = self._add("rect", box | {"class": style})
        if tooltip:
            ElementTree.SubElement(node, "title").text = tooltip

    def text(self, x: float, y: float, text: str, style: str = "", *, anchor: str = "start") -> None:
        """A text at view box units."""
        node = self._add("text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor, "class": style})
        node.text = text

    def label(self, point: Point, text: str, style: str, *, gap: float = 9.0) -> None:
        """A text beside a point, where it covers as little as possible of marks and earlier labels."""
        x, y = self.at(point)
        found = []
        for rank, (dx, dy, anchor) in enumerate(PLACES):
            at, middle = x + dx * gap, y + dy * (gap + LINE / 2)
            left = at - ANCHORS[anchor] * CHARACTER * len(text)
            box = (left, middle - LINE / 2, left + CHARACTER * len(text), middle + LINE / 2)
            covered = _overlap(box, self.taken) + 3 * self._outside(box)
            found.append((covered + rank, at, anchor, box))
        _, at, anchor, box = min(found)
        self.taken.append(box)
        self.text(at, box[3] - 2.5, text, style, anchor=anchor)

    def markup(self) -> Markup:
        """The chart as an element to put into a page."""
        return Markup(ElementTree.tostring(self.root, encoding="unicode"))  # noqa: S704  ElementTree has escaped it

    def _axes(self, x_title: str, y_title: str) -> None:
        for value, text in self.y.ticks:
            self.segment((self.x.low, value), (self.x.high if self.lines else self.x.low, value), "rule")
            self.text(LEFT - 5, self.at((self.x.low, value))[1] + 4, text, "tick", anchor="end")
        for value, text in self.x.ticks:
            x, base = self.at((value, self.y.low))
            self._add("path", {"d": f"M{x:.1f} {base:.1f}v4", "class": "axis"})
            self.text(x, base + 15, text, "tick", anchor="middle")
        self.segment((self.x.low, self.y.low), (self.x.high, self.y.low), "axis")
        self.text((LEFT + WIDTH - RIGHT) / 2, self.height - 4, x_title, "tick", anchor="middle")
        if y_title:
            self.text(2.0, TOP - 7, y_title, "tick")

    def _add(self, tag: str, attributes: dict[str, str]) -> ElementTree.Element:
        return ElementTree.SubElement(self.root, tag, attributes)

    def _outside(self, box: Box) -> float:
        inside = (LEFT, TOP - 6, WIDTH - 4, self.height - BOTTOM)
        return (box[2] - box[0]) * (box[3] - box[1]) - _overlap(box, [inside])


def outline(shape: str, centre: Point, radius: float) -> str:
    """The path of a mark: a circle, or a polygon of about the same area."""
    x, y = centre
    corners = CORNERS[shape]
    if not corners:
        half = f"a{radius:g} {radius:g} 0 1 0"
        return f"M{x - radius:.1f} {y:.1f}{half} {2 * radius:g} 0{half} {-2 * radius:g} 0Z"
    reach = radius * math.sqrt(math.tau / (corners * math.sin(math.tau / corners)))
    angles = [TURN.get(shape, 0.0) + math.tau * index / corners for index in range(corners)]
    return "M" + "L".join(f"{x + reach * math.sin(a):.1f} {y - reach * math.cos(a):.1f}" for a in angles) + "Z"


def _overlap(box: Box, others: Sequence[Box]) -> float:
    """The area that a box shares with each other box, summed."""
    left, top, right, bottom = np.array(others, dtype=np.float64).reshape(-1, 4).T
    width = np.minimum(box[2], right) - np.maximum(box[0], left)
    height = np.minimum(box[3], bottom) - np.maximum(box[1], top)
    return float((np.maximum(width, 0) * np.maximum(height, 0)).sum())
