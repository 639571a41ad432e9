"""The columns of an evaluation: one for each threat, view of the model and attack."""

from dataclasses import dataclass

from generalist.attacks import VERSIONS
from generalist.config import AttackOptions, EvaluationOptions, ThreatOptions
from generalist.models import DECISION, Classifier

STRONGER = ("odi-t",)
"""The attacks that `evaluation.extra_attack` adds after the cascade."""
_ON_EVERY_VIEW = ("pgd",)


@dataclass(frozen=True)
class Column:
    """One way to attack every image.

    Attributes:
        threat: the ball.
        attack: its name in `attacks`.
        view: of the model, that the attack goes through; the verdict is by the decision.
        adaptive: whether the attack knows the decision; else it ends where the view is fooled.
    """

    threat: ThreatOptions
    attack: str
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
    named = attacks(options)
    return [
        Column(threat, attack, view, adaptive)
        for threat in options.threats
        for adaptive, views in ((True, model.views()), (False, model.nonadaptive()))
        for view in views
        for attack in (named if view == DECISION or not adaptive else _ON_EVERY_VIEW)
    ]


def attacks(options: EvaluationOptions) -> dict[str, str]:
    """Return the attacks within each threat by name, with their settings; up to a comma, these are a title."""
    descriptions = {"pgd": described(options.pgd), "cascade": _cascade_described(options.attack, options)}
    if options.extra_attack:
        descriptions["strongest"] = _cascade_described(" and ".join((options.attack, *STRONGER)), options)
    return descriptions


def described(attack: AttackOptions) -> str:
    """Return an attack of those that train, or a quick cascade, with its settings."""
    if attack.name != "pgd":
        return attack.name
    size = "2.5 eps / steps" if attack.step_size is None else str(attack.step_size.written)
    return f"PGD, {attack.steps} steps of {size}, {'random start' if attack.random_start else 'no random start'}"


def _cascade_described(title: str, options: EvaluationOptions) -> str:
    by_queries = "square" in VERSIONS[options.attack].members
    description = f"{title}, {options.square_queries} queries" if by_queries else title
    return description if options.precision == "float32" else f"{description}, searched in {options.precision}"
