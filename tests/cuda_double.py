"""What stands in for CUDA's streams and graphs: it notes what is asked of them, in order."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch


class Stream:
    """A stream by name."""

    def __init__(self, name: str, noted: list[str]) -> None:
        self.name, self._noted = name, noted

    def wait_stream(self, other: "Stream") -> None:
        """As torch's."""
        self._noted.append(f"{self.name} waits for {other.name}")


class Cuda:
    """The parts of `torch.cuda` that the engine uses.

    Attributes:
        noted: what was asked, in order.
        fails: whether a capture fails at its end, as CUDA's do.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.noted: list[str] = []
        self.fails = False
        self.current = Stream("around", self.noted)
        doubles: dict[str, Callable[..., Any]] = {
            "is_available": lambda: True,
            "current_stream": lambda *_: self.current,
            "Stream": lambda *_: Stream("own", self.noted),
            "stream": self._on,
            "set_stream": self._set,
            "CUDAGraph": lambda: self,
            "graph": self._captured,
        }
        for name, double in doubles.items():
            monkeypatch.setattr(torch.cuda, name, double)

    def replay(self) -> None:
        """Replay, as a graph does."""
        self.noted.append("replay")

    def _set(self, stream: Stream) -> None:
        self.current = stream

    @contextmanager
    def _on(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        self.noted.append(f"{stream.name} is current")
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def _captured(self, graph: "Cuda", *, stream: Stream, capture_error_mode: str) -> Iterator[None]:
        assert graph is self
        assert capture_error_mode == "thread_local"  # other experts work in threads meanwhile
        self.current = stream  # torch leaves it where a capture fails
        yield
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.noted.append("captured")
