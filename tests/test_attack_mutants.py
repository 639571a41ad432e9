"""Attacks with a mistake in them are caught: one mistake at a time, each against a check that the code itself passes."""

import inspect
import sys
import textwrap
from dataclasses import dataclass, replace
from importlib import import_module
from types import FunctionType
from typing import Any

import pytest
from torch import Tensor

from generalist.attacks import VERSIONS, fixed_batches, model_checks
from generalist.attacks.apgd_state import ApgdState
from generalist.attacks.attack_target import AttackTarget
from generalist.attacks.autoattack_config import AutoAttackConfig
from generalist.attacks.evaluation_state import EvaluationState
from generalist.attacks.fab import _FabState
from generalist.attacks.losses import targeted_dlr, targeted_margin
from generalist.threats.l1 import L1Ball
from generalist.threats.l2 import L2Ball
from generalist.threats.linf import LinfBall
from tests.attack_checks import CHECKS
from tests.exact_linear import NORMS

pytestmark = pytest.mark.long

# The package names some functions as their modules are named.
apgd, apgd_t, fab, odi_t, square, apgd_state, runs = (
    import_module(f"generalist.attacks.{name}")
    for name in ("apgd", "members.apgd_t", "fab", "members.odi_t", "square", "apgd_state", "runs")
)


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    """No more images in a pass than there are, little time spent on flags, and half of the steps."""
    monkeypatch.setattr(model_checks, "_HUGE_STEPS", 2)
    monkeypatch.setattr(fixed_batches, "_TILE", 8)
    monkeypatch.setitem(VERSIONS, "standard", replace(VERSIONS["standard"], steps=50, fab_steps=50))


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_the_code_passes_each_check(check):
    """Else catching a mistake would say nothing."""
    check()


# Mistakes.


def rewritten(function: Any, old: str, new: str) -> FunctionType:
    """Return a function with one piece of its source replaced."""
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, f"{old!r} must occur once in {function.__qualname__}: adapt the mistake to the code"
    plain = inspect.unwrap(function)
    found: dict[str, Any] = {}
    exec(source.replace(old, new), vars(sys.modules[plain.__module__]), found)
    return found[plain.__name__]


@dataclass(frozen=True)
class Mistake:
    """Something in a module or class, and what takes its place: a value, or its own source with a piece replaced."""

    owner: Any
    name: str
    value: Any = None
    old: str = ""
    new: str = ""

    def make(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """For the time of a test."""
        original = inspect.getattr_static(self.owner, self.name)
        value = self.value
        if self.old:
            value = rewritten(getattr(self.owner, self.name), self.old, self.new)
        monkeypatch.setattr(
            self.owner, self.name, value if not isinstance(original, staticmethod) else staticmethod(value)
        )


def ranked_with_the_label(logits: Tensor, _: Tensor) -> Tensor:
    """As if the label could be aimed at."""
    return logits.argsort(dim=1, descending=True)[:, :-1]


def unclipped(self: LinfBall, points: Tensor) -> Tensor:
    """Into the ball alone."""
    return points.copy_(points.clamp(self.images - self.radius, self.images + self.radius))


def only_clipped(self: L1Ball, points: Tensor) -> Tensor:
    """To the pixel range."""
    return points.clamp_(0, 1)


MISTAKES: dict[str, tuple[Mistake, str]] = {
    "no momentum": (Mistake(apgd, "MOMENTUM", 1.0), "published steps"),
    "rho 1/2": (Mistake(apgd_state, "PROGRESS", 0.5), "published steps"),
    "rho compared the other way round": (
        Mistake(ApgdState, "check", old="self.rises <= PROGRESS", new="self.rises >= PROGRESS"),
        "published steps",
    ),
    "no way back to the best point": (Mistake(ApgdState, "go_back", lambda *_: None), "published steps"),
    "one target": (Mistake(AutoAttackConfig, "ranks", lambda _: [range(1)]), "every class"),
    "a target that is the label": (Mistake(runs, "other_classes_by_logit", ranked_with_the_label), "ranks"),
    "targets flipped": (Mistake(apgd_t, "targeted_dlr", lambda *own: -targeted_dlr(*own)), "exact apgd-t linf"),
    "margins flipped": (Mistake(odi_t, "targeted_margin", lambda *own: -targeted_margin(*own)), "exact odi-t linf"),
    "loss lowered": (
        Mistake(LinfBall, "steepest_ascent", classmethod(lambda _, gradient: -gradient.sign())),
        "exact apgd-t linf",
    ),
    **{
        f"half of eps in {norm}": (Mistake(ball, "safe_radius", lambda _, eps, __: eps / 2), f"exact apgd-t {norm}")
        for norm, ball in {"linf": LinfBall, "l2": L2Ball, "l1": L1Ball}.items()
    },
    "no clip in linf": (Mistake(LinfBall, "project_", unclipped), "ball linf"),
    "no clip in l2": (Mistake(L2Ball, "project_", old=".clamp_(0, 1)", new=""), "ball l2"),
    "only a clip in l1": (Mistake(L1Ball, "project_", only_clipped), "ball l1"),
    "equal margins accepted": (
        Mistake(square, "_search_", old="~(reached >= margins", new="~(reached > margins"),
        "plateau",
    ),
    "no step back": (Mistake(fab, "BACK", 1.0), "beyond and back"),
    "no step beyond": (Mistake(fab, "BEYOND", 1.0), "beyond and back"),
    **{
        f"the lead's sign flipped in {norm}": (
            Mistake(_FabState, "_to_boundary", old="- slopes.losses", new="+ slopes.losses"),
            f"exact fab-t {norm}",
        )
        for norm in NORMS
    },
    "a success by the view": (Mistake(AttackTarget, "judged", old="if self.view is None", new="if True"), "decision"),
    "a tie that holds": (Mistake(EvaluationState, "_judged", old="~(margins > 0)", new="margins < 0"), "ties"),
    "nothing measured": (
        Mistake(EvaluationState, "_confirm", old="sure = allowed & broken", new="sure = broken"),
        "outside",
    ),
}


@pytest.mark.parametrize(("mistake", "check"), MISTAKES.values(), ids=MISTAKES)
def test_each_mistake_is_caught(mistake, check, monkeypatch):
    """By a check that says what is wrong with it."""
    mistake.make(monkeypatch)
    with pytest.raises(AssertionError):
        CHECKS[check]()
