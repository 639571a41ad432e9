"""A process for each group of a round, so that experts wait for nothing of each other's, each on a device of its own.

A process ends with the one that started it, however that ends: no expert is trained beside the next run.
"""

import os
import signal
import threading
import time
import traceback
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from generalist.config import Config
from generalist.data import Dataset
from generalist.errors import BadInput
from generalist.records import EpochRecord
from generalist.store import Store
from generalist.training.facts import Tell
from generalist.training.keys import CheckpointRefs, Cuts
from generalist.training.plan import Round
from generalist.training.runners import InProcessRunner
from generalist.training.trainer import Trainer

_CONTEXT = get_context("spawn")  # a fork would share the threads of torch, and whatever they hold at that moment
_GLANCE = 0.2  # seconds between two looks for the parent


class ProcessRunner(InProcessRunner):
    """A process for each group of a round; they start when they are first needed and stay for the rounds to come."""

    def __init__(self, training: Trainer, tell: Tell) -> None:
        super().__init__(training, tell)
        self._idle: list[_Worker] = []
        self._all: list[_Worker] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for worker in self._all:
            worker.end()

    def advance(self, round_: Round, positions: CheckpointRefs) -> Cuts:
        """Train every group of a round at once; records are told as they are made."""
        return self._follow([self._begin(round_, group, positions) for group in round_.groups])

    def advance_group(self, round_: Round, group: Sequence[str], positions: CheckpointRefs) -> Cuts:
        """Train one group in another process."""
        return self._follow([self._begin(round_, group, positions)])

    def _begin(self, round_: Round, group: Sequence[str], positions: CheckpointRefs) -> "_Worker":
        with self._lock:
            if self._idle:
                worker = self._idle.pop()
            else:
                worker = _Worker(self.training, number=len(self._all))
                self._all.append(worker)
        worker.connection.send((round_, tuple(group), dict(positions)))
        return worker

    def _follow(self, busy: list["_Worker"]) -> Cuts:
        cuts: Cuts = {}
        try:
            while busy:
                for ready in wait([worker.connection for worker in busy]):
                    worker = next(candidate for candidate in busy if candidate.connection is ready)
                    message = worker.told()
                    if isinstance(message, EpochRecord):
                        self.tell(message)
                        continue
                    cuts |= message
                    busy.remove(worker)
                    with self._lock:
                        self._idle.append(worker)
        finally:
            for worker in busy:  # whoever followed them went away, or one failed
                worker.end()
        return cuts


class _Worker:
    """A process that advances one group at a time."""

    def __init__(self, training: Trainer, *, number: int) -> None:
        self.connection, theirs = _CONTEXT.Pipe()
        sent = (
            training.config,
            training.dataset,
            training.store,
            training.root,
            _visible_device(training.config, number),
        )
        self._process = _CONTEXT.Process(target=_work, args=(theirs, os.getpid(), *sent), daemon=True)
        self._process.start()
        theirs.close()

    def told(self) -> EpochRecord | Cuts:
        """Return the next record, or at last the positions.

        Raises:
            BadInput: what the group raised, or the process was killed.
        """
        try:
            message: EpochRecord | Cuts | BaseException = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            raise BadInput(
                f"the process that trained an expert ended by itself (exit code {self._process.exitcode}; -9 is often a"
                " lack of memory): the same command goes on from what is stored"
            ) from None
        if isinstance(message, BaseException):
            raise message
        return message

    def end(self) -> None:
        """End the process at once: what it stored is whole, and the rest is computed again."""
        self._process.kill()
        self._process.join()
        self.connection.close()


def _work(
    connection: Connection,
    parent: int,
    config: Config,
    dataset: Dataset,
    store: Store,
    root: Path,
    device: str | None,
) -> None:
    """Be a worker as long as its parent lives."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started us, and ends us
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device

    def end_with_parent() -> None:
        while os.getppid() == parent:
            time.sleep(_GLANCE)
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    training = Trainer(config, dataset, store, root=root)
    while True:
        try:
            round_, group, positions = connection.recv()
        except EOFError:
            return
        try:
            connection.send(training.advance(round_, group, positions, connection.send))
        except BadInput as error:
            connection.send(error)
        except Exception:  # noqa: BLE001  it is raised where somebody waits for us
            connection.send(RuntimeError(f"in the process that trains {', '.join(group)}:\n{traceback.format_exc()}"))


def _visible_device(config: Config, number: int) -> str | None:
    """Return the one GPU that a worker sees; None where there is nothing to share out."""
    if config.training.device != "cuda":
        return None
    named = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
    devices = [name for name in named.split(",") if name]
    return devices[number % len(devices)] if devices else None
