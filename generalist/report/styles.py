"""How learners, accuracies and threats are called and drawn, the same in every part of the page."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from generalist.config import ENSEMBLE, AttackOptions, Quantity, ThreatOptions
from generalist.records import Accuracy
from generalist.report.svg import EXPERTS, INK, PANEL, swatch
from generalist.threats import is_threat, symbol_of, threat_from

GLOBAL = "global"
SPACE = "\u00a0"
"""A space at which no line breaks."""

MARKERS = tuple("s^DpvXP*<>h8")
DASHES = ("-", "--", ":")


@dataclass(frozen=True)
class LearnerStyle:
    """A learner's name for readers, and matplotlib's colour, line style and marker for it."""

    label: str
    colour: str
    dash: str
    marker: str

    def swatch(self, place: str) -> Markup:
        """Return its line and mark, for a legend in some place of the page."""
        style = {"color": self.colour, "linestyle": self.dash}
        mark = {"color": self.colour, "marker": self.marker, "markeredgecolor": PANEL}
        return swatch(
            {"xdata": [0, 1], "ydata": [0.5, 0.5], **style},
            {"xdata": [0.5], "ydata": [0.5], **mark},
            place=f"{self.label}, {place}",
        )


def learner_styles(names: Iterable[str]) -> dict[str, LearnerStyle]:
    """Return a look per learner, by its order; colours repeat after four experts, with another dash and no end."""
    experts = [name for name in dict.fromkeys(names) if name != GLOBAL]
    styles = {
        name: LearnerStyle(
            f"{name} expert",
            EXPERTS[index % len(EXPERTS)],
            DASHES[index // len(EXPERTS) % len(DASHES)],
            MARKERS[index % len(MARKERS)],
        )
        for index, name in enumerate(experts)
    }
    if ENSEMBLE in styles:
        styles[ENSEMBLE] = replace(styles[ENSEMBLE], label="ensemble of peers")
    return styles | {GLOBAL: LearnerStyle("global learner", INK, "-", "o")}


def percent(share: float, digits: int = 1) -> str:
    """Return 0.987 as `98.7 %`."""
    return f"{100 * share:.{digits}f}{SPACE}%"


def interval(accuracy: Accuracy) -> str:
    """Return the 95 % interval in per cent, as `[97.1, 99.4]`."""
    low, high = accuracy.interval
    return f"[{100 * low:.1f},{SPACE}{100 * high:.1f}]"


def threat(written: str) -> str:
    """Return `linf:8/255` as `L∞ 8/255`; anything else as it is."""
    norm, colon, eps = written.partition(":")
    return f"{symbol_of(norm)}{SPACE}{eps}" if colon and is_threat(norm) else written


def change(size: float, eps: Quantity) -> str:
    """Return the change of a pixel in the words of a radius: `8/255` where that is written so, `0.15` elsewhere."""
    over = str(eps.written).partition("/")[2]
    return f"{size * float(over):.3g}/{over}" if over else f"{size:.3g}"


def threats_in_words(written: Sequence[str]) -> str:
    """Return words such as `L∞ 8/255`, or `union of L∞ 8/255 and L2 0.5`."""
    return f"{'union of ' if len(written) > 1 else ''}{' and '.join(map(threat, written))}"


def attack_in_words(attack: AttackOptions, against: Sequence[ThreatOptions]) -> str:
    """Return words such as `PGD with 10 steps, L∞ 8/255`."""
    name = {"pgd": f"PGD with {attack.steps} steps", "fgsm": "FGSM"}.get(attack.name, f"the {attack.name} cascade")
    return f"{name}, {threats_in_words([str(threat_from(one)) for one in against])}"
