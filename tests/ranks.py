"""Several processes that train together, forked from the test: under `torchrun` their imports would take seconds."""

import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from generalist import engine
from tests.processes import forking
from tests.services import free_port

T = TypeVar("T")

__all__ = ["forking", "together"]


def together(folder: Path, work: Callable[[engine.ProcessGroup], T], *, size: int = 2) -> list[T]:
    """Return what `work` gives in each of `size` processes, by rank; `folder` takes them: plain values and tensors."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    children = [_child(folder / f"{rank}.pt", work, rank, size, port) for rank in range(size)]
    for child in children:
        os.waitpid(child, 0)
    answers = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(size)]
    failures = [failure for _, failure in answers if failure]
    assert not failures, "\n".join(failures)
    return [answer for answer, _ in answers]


def _child(path: Path, work: Callable[[engine.ProcessGroup], T], rank: int, size: int, port: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    answer: tuple[T | None, str] = (None, "it did not end")
    try:
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        with engine.join_launched() as group:
            answer = (work(group), "")
    except BaseException:  # noqa: BLE001  the test tells it
        answer = (None, f"rank {rank}: {traceback.format_exc()}")
    finally:
        torch.save(answer, path)
        os._exit(0)
