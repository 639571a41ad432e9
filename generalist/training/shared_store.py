"""The store of a training by several processes: the first one has it, and tells the others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from generalist.engine import ProcessGroup
from generalist.store import StateLost, Store, Stored


class SharedStore(Store):
    """One answer for all processes, so that all take the same branch, wherever the store's folder can be seen from.

    They ask in the same order. Writing needs no agreement: the first process writes before it answers the next
    question, and whether a clock makes it store a state more or less is its own affair.
    """

    def __init__(self, folder: Path, group: ProcessGroup) -> None:
        super().__init__(folder)
        self._group = group

    def __contains__(self, key: str) -> bool:
        return self._group.broadcast_from_rank0(lambda: Store.__contains__(self, key))

    def load(self, key: str, *, touch: bool = True) -> Stored:
        return self._group.broadcast_from_rank0(lambda: Store.load(self, key, touch=touch))

    def save(self, key: str, kind: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        if self._group.rank == 0:
            super().save(key, kind, tensors, facts)

    def discard(self, key: str) -> None:
        if self._group.rank == 0:
            super().discard(key)

    def verify_all(self) -> tuple[int, list[StateLost]]:
        return self._group.broadcast_from_rank0(Store(self.folder).verify_all)
