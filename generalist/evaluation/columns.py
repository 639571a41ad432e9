"""The columns of an evaluation: one for each threat, view of the model and attack."""

from dataclasses import dataclass

from generalist.attacks import VERSIONS
from generalist.config import AttackOptions, EvaluationOptions, ThreatOptions
from generalist.models import DECISION, Classifier

STRONGER = ("odi-t",)
"""The attacks that `evaluation.extra_attack` adds after the cascade."""


@dataclass(frozen=True)
class Column:
    """One way to attack every image.

    Attributes:
        threat: the ball.
        attack: its name in `attacks`.
        view: of the model, that the attack goes through; the verdict is by the decision.
    """

    threat: ThreatOptions
    attack: str
    view: str = DECISION

    @property
    def name(self) -> str:
        """The column under its threat: the attack, after the view where that is not the decision."""
        return self.attack if self.view == DECISION else f"{self.view}/{self.attack}"


def columns(options: EvaluationOptions, model: Classifier) -> list[Column]:
    """Return all columns of an evaluation, in the order in which they are attacked and shown."""
    return [
        Column(threat, attack, view)
        for threat in options.threats
        for view in model.views()
        for attack in attacks(options)
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
