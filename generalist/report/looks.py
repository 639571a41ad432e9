"""How learners, accuracies and threats are called and drawn, the same in every part of the page."""

from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup

from generalist.records import Accuracy
from generalist.report.svg import outline

GLOBAL = "global"
SPACE = "\u00a0"
"""A space at which no line breaks."""

SHAPES = ("square", "triangle", "diamond", "pentagon")
NORMS = {"linf": "L∞", "l2": "L2", "l1": "L1"}


@dataclass(frozen=True)
class Look:
    """A learner's name for readers, its class in the style sheet and the shape of its marks."""

    label: str
    style: str
    shape: str

    @property
    def swatch(self) -> Markup:
        """Its line and mark, for a legend."""
        mark = outline(self.shape, (14.0, 7.0), 4.0)
        return Markup(
            '<svg class="swatch" viewBox="0 0 28 14" aria-hidden="true">'
            '<path class="line {0}" d="M0 7L28 7"/><path class="mark {0}" d="{1}"/></svg>'
        ).format(self.style, mark)


def looks(names: Iterable[str]) -> dict[str, Look]:
    """One look per learner, by its order; colours repeat after four experts, with another dash and without end."""
    experts = [name for name in dict.fromkeys(names) if name != GLOBAL]
    found = {
        name: Look(f"{name} expert", f"e{index % 4} d{index // 4 % 3}", SHAPES[index % len(SHAPES)])
        for index, name in enumerate(experts)
    }
    return found | {GLOBAL: Look("global learner", "eg", "circle")}


def percent(share: float, digits: int = 1) -> str:
    """0.987 as `98.7 %`."""
    return f"{100 * share:.{digits}f}{SPACE}%"


def interval(accuracy: Accuracy) -> str:
    """The 95 % interval in per cent, as `[97.1, 99.4]`."""
    low, high = accuracy.interval
    return f"[{100 * low:.1f},{SPACE}{100 * high:.1f}]"


def threat(written: str) -> str:
    """`linf:8/255` as `L∞ 8/255`; anything else as it is."""
    norm, colon, eps = written.partition(":")
    return f"{NORMS[norm]}{SPACE}{eps}" if colon and norm in NORMS else written
