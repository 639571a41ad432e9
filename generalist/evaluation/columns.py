"""The columns of an evaluation: one for each threat, view of the model and attack."""

from dataclasses import dataclass
from typing import Literal

from generalist.attacks import VERSIONS
from generalist.attacks.members import cascade_title, meaningful
from generalist.config import AttackOptions, EvaluationOptions, ThreatOptions
from generalist.models import DECISION, Classifier
from generalist.threats import Threat, threat_from

STRONGER = ("odi-t",)
"""The attacks that `evaluation.extra_attack` adds after the cascade."""
Way = Literal["pgd", "cascade", "strongest", "grid"]
"""How a column attacks; threats may call it by other names, see `attacks_within`."""


@dataclass(frozen=True)
class Column:
    """One way to attack every image.

    Attributes:
        threat: the ball.
        attack: its name in `attacks`.
        way: how it attacks.
        view: of the model, that the attack goes through; the verdict is by the decision.
        adaptive: whether the attack knows the decision; else it ends where the view is fooled.
    """

    threat: ThreatOptions
    attack: str
    way: Way
    view: str = DECISION
    adaptive: bool = True

    @property
    def name(self) -> str:
        """The column under its threat: the attack, after the view where that is not the decision.

        What is not adaptive says so in its name, so that no table can leave that out.
        """
        mark = "" if self.adaptive else " (non-adaptive)"
        return self.attack if self.view == DECISION else f"{self.view}{mark}/{self.attack}"


def columns(options: EvaluationOptions, model: Classifier) -> list[Column]:
    """Return all columns of an evaluation, in the order in which they are attacked and shown.

    Cascades on the decision go through its other views as well, so these have columns for PGD alone.
    """
    return [
        Column(threat, name, way, view, adaptive)
        for threat in options.threats
        for adaptive, views in ((True, model.views()), (False, model.nonadaptive()))
        for view in views
        for name, (way, _) in attacks_within(threat_from(threat), options).items()
        if way == "pgd" or view == DECISION or (way != "grid" and not adaptive)
    ]


def attacks(options: EvaluationOptions) -> dict[str, str]:
    """Return all attacks by name, with their settings; up to a comma, these are a title."""
    threats = map(threat_from, options.threats)
    return {
        name: description
        for threat in threats
        for name, (_, description) in attacks_within(threat, options).items()
    }  # fmt: skip


def attacks_within(threat: Threat, options: EvaluationOptions) -> dict[str, tuple[Way, str]]:
    """Return the attacks within one threat by name, with how they attack and their settings.

    A cascade of which some attacks mean nothing there bears the names of the others; a threat with a grid of choices
    has the worst of it in a column of its own.
    """
    members = VERSIONS[options.attack].members
    used = meaningful(members, threat)
    title = cascade_title(options.attack, threat)
    cascade = "cascade" if used == members else "+".join(used)
    ways: dict[str, tuple[Way, str]] = {
        "pgd": ("pgd", described(options.pgd)),
        cascade: ("cascade", _cascade_described(title, options, square="square" in used)),
    }
    if options.extra_attack:
        named = (options.attack,) if used == members else used
        title = " and ".join((*named, *STRONGER))
        strongest = "strongest" if used == members else "+".join((*used, *STRONGER))
        ways[strongest] = ("strongest", _cascade_described(title, options, square="square" in used))
    if threat.space is not None and (changes := threat.space.changes()):
        ways[threat.space.grid_title()] = ("grid", f"worst of {threat.space.grid_title()}, {len(changes)} points")
    return ways


def described(attack: AttackOptions) -> str:
    """Return an attack of those that train, or a quick cascade, with its settings."""
    if attack.name != "pgd":
        return attack.name
    size = "2.5 eps / steps" if attack.step_size is None else str(attack.step_size.written)
    return f"PGD, {attack.steps} steps of {size}, {'random start' if attack.random_start else 'no random start'}"


def _cascade_described(title: str, options: EvaluationOptions, *, square: bool) -> str:
    description = f"{title}, {options.square_queries} queries" if square else title
    return description if options.precision == "float32" else f"{description}, searched in {options.precision}"
