"""Evaluations that are killed with `kill -9` again and again, and go on each time; run as a program."""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generalist.attacks import VERSIONS, AutoAttackResult, attack_ensemble, autoattack, fixed_batches
from generalist.attacks.members import member_names
from generalist.attacks.resume import StateFile, identity
from generalist.threats import Threat
from tests.strategies import problem

SHORT = replace(VERSIONS["plus"], restarts=2, targets=3, steps=5, fab_steps=3)
TILE = 8
THREAT = Threat("linf", 0.06)
DEATHS = ["after a batch", "in a pass", "while a state is written"]


NETWORK, IMAGES, LABELS = problem(16)


def evaluation(network: Callable[[Tensor], Tensor] = NETWORK, **changed: Any) -> AutoAttackResult:
    """All members with few steps, a tile of images at a time."""
    own = {"version": "plus", "attacks": member_names(), "square_queries": 12, "batch_size": TILE} | changed
    return autoattack(network, IMAGES, LABELS, THREAT, **own)


def die(*_: object) -> None:
    """Leave nothing time to clean up."""
    os.kill(os.getpid(), signal.SIGKILL)


def dying_after(count: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that works for some calls, and kills its process in the next one."""
    left = [count]

    def counted(*arguments: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            die()
        return function(*arguments)

    return counted


def live(death: str, life: int, state: Path) -> None:
    """Evaluate until a death of some kind."""
    changed: dict[str, Any] = {"state": state}
    if death == DEATHS[0]:
        changed["watch"] = lambda standing: die() if standing.images else None
    elif death == DEATHS[1]:
        changed["network"] = dying_after(50 + 10 * life, NETWORK)
    else:
        os.fsync = dying_after(4, os.fsync)  # two states and their folder are written, the third state in part
    evaluation(**changed)


def lives(death: str, state: Path) -> int:
    """How many an evaluation takes. They are forked, as imports take seconds; this process itself attacks nothing."""
    for life in range(1, 1000):
        pid = os.fork()
        if pid == 0:
            live(death, life, state)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        if status == 0:
            return life
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, f"life {life} ended with {status}"
    raise AssertionError("it never ends")


if __name__ == "__main__":
    torch.set_num_threads(1)
    VERSIONS["plus"] = SHORT
    fixed_batches._TILE = TILE
    attack_ensemble.StateFile = partial(StateFile, every=0.0)  # type: ignore[misc,assignment]
    identity(
        NETWORK, {}, IMAGES, LABELS, NETWORK(IMAGES), THREAT, member_names(), "", 0
    )  # reads all code, once for all lives
    print(*(lives(death, Path(sys.argv[1]) / death) for death in DEATHS))  # noqa: T201  the result
