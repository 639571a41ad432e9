"""How long things took on this machine, so that a plan can say how long they will take."""

import math
import platform
from typing import Any

from generalist.config import digest
from generalist.store import StateLost, Store

_RECENT = 5  # measurements that are kept of each thing


class Speeds:
    """Seconds by what took them; kept in the store, apart for each machine."""

    def __init__(self, store: Store, about: Any) -> None:
        """Remember speeds; `about` is what all of it depends on: model, device, threads and the like."""
        self._store, self._about = store, [about, platform.node()]

    def note(self, what: Any, seconds: float) -> None:
        """Remember a measurement."""
        self._store.save(self._key(what), "speed", {}, {"seconds": [*self._measured(what), seconds][-_RECENT:]})

    def of(self, what: Any) -> float | None:
        """Return the median of the latest measurements in seconds; None where nothing was measured."""
        seconds = sorted(self._measured(what))
        return seconds[len(seconds) // 2] if seconds else None

    def _measured(self, what: Any) -> list[float]:
        key = self._key(what)
        try:
            stored = self._store.load(key)
            with self._store.understood(key):
                return [seconds for seconds in map(float, stored.facts["seconds"]) if 0 <= seconds < math.inf]
        except StateLost:
            return []

    def _key(self, what: Any) -> str:
        return digest(["speed", self._about, what])
