"""The attacks of a cascade, one file each, found by its name (`apgd-ce` is `apgd_ce.py`), and cascades by name.

Each says which runs it makes, from which starts, at which classes. Settings are those of AutoAttack (Croce and Hein,
ICML 2020, section 5; in L1: ICML 2021) where it has them.
"""

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from generalist.attacks.autoattack_config import AttackRun, AutoAttackConfig
from generalist.config.section import nearest, part_names
from generalist.errors import BadInput
from generalist.threats import Threat

GRADIENT_FREE = ("square",)


def member_names() -> list[str]:
    """Return all attacks that a cascade may have."""
    return [name.replace("_", "-") for name in part_names("attacks.members")]


def member_module(name: str) -> str:
    """Return the module of an attack."""
    return f"{__name__}.{name.replace('-', '_')}"


def member(name: str) -> Callable[[AutoAttackConfig], Iterator[AttackRun]]:
    """Return the function that yields an attack's runs; no other attack is imported."""
    runs: Callable[[AutoAttackConfig], Iterator[AttackRun]] = importlib.import_module(member_module(name)).runs
    return runs


@dataclass(frozen=True)
class Version:
    """A cascade with its settings.

    Attributes:
        members: the attacks, cheapest first.
        restarts, targets, steps, fab_steps, queries: see `AutoAttackConfig`; queries by the caller where None.
        draws: passes behind a gradient, for models that draw random numbers; 1 for others.
    """

    members: tuple[str, ...]
    restarts: int = 1
    targets: int = 9
    steps: int = 100
    fab_steps: int = 100
    queries: int | None = None
    draws: int = 1


VERSIONS: dict[str, Version] = {
    "standard": Version(("apgd-ce", "apgd-t", "fab-t", "square")),
    "plus": Version(("apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "fab", "square"), restarts=5),
    "rand": Version(("apgd-ce", "apgd-dlr"), draws=20),
    "quick": Version(("apgd-ce", "apgd-t", "fab-soon"), targets=6, steps=30, fab_steps=30),
}
"""`standard`, `plus` and `rand` are AutoAttack's; `quick` is ours, for choices during training: no substitute."""


def meaningful(names: Sequence[str], threat: Threat) -> tuple[str, ...]:
    """Return those of some attacks that mean something within a threat, as it declares: some spaces have no squares."""
    known = None if threat.space is None else threat.space.members
    return tuple(name for name in names if known is None or name in known)


def cascade_title(version: str, threat: Threat) -> str:
    """Return what people call a cascade within a threat: its name, or the attacks of it that mean something there."""
    used = meaningful(VERSIONS[version].members, threat)
    return version if used == VERSIONS[version].members else f"{' and '.join(used)}, of {version}"


def chosen(version: str, attacks: Sequence[str] | None) -> tuple[Version, tuple[str, ...]]:
    """Return a version by name, and the attacks to run with its settings: its own, or those named.

    Raises:
        BadInput: there is no such version or attack, or no attack is named.
    """
    if version not in VERSIONS:
        raise BadInput(f"there is no version '{version}' of the cascade; {nearest(version, list(VERSIONS))}")
    if attacks is None:
        return VERSIONS[version], VERSIONS[version].members
    known = member_names()
    for name in attacks:
        if name not in known:
            raise BadInput(f"there is no attack '{name}'; {nearest(name, known)}")
    if not attacks:
        raise BadInput(f"'attacks' is empty; name one at least of: {', '.join(known)}")
    return VERSIONS[version], tuple(dict.fromkeys(attacks))
