"""The attacks of a cascade, one file each, found by its name: `apgd-ce` is `apgd_ce.py`.

Each says which runs it makes, from which starts, at which classes. Settings are those of AutoAttack (Croce and Hein,
ICML 2020, section 5; in L1: ICML 2021) where it has them.
"""

import importlib
from collections.abc import Callable, Iterator

from generalist.attacks.setting import Setting, Wave
from generalist.config.section import part_names

GRADIENT_FREE = ("square",)


def member_names() -> list[str]:
    """Return all attacks that a cascade may have."""
    return [name.replace("_", "-") for name in part_names("attacks.members")]


def member_module(name: str) -> str:
    """Return the module of an attack."""
    return f"{__name__}.{name.replace('-', '_')}"


def member(name: str) -> Callable[[Setting], Iterator[Wave]]:
    """Return the function that yields an attack's waves; no other attack is imported."""
    waves: Callable[[Setting], Iterator[Wave]] = importlib.import_module(member_module(name)).waves
    return waves
