"""How far a training is: a live line for each expert in a terminal, plain lines where there is none."""

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

from generalist.records import EpochRecord, RoundRecord

_RECENT = 5  # epochs whose mean duration foretells the others'


class Progress:
    """Follows a training; experts report from several threads. Enter it to show the live lines.

    Args:
        console: where to show it; by default standard error. Its live lines need a terminal.
        write: takes plain lines instead, such as a logger of Prefect's.
        every: seconds between two plain lines of one expert; its last epoch always gets one.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        *,
        console: Console | None = None,
        write: Callable[[str], None] | None = None,
        every: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        live = write is None and self._console.is_terminal and not self._console.is_dumb_terminal
        self._bars = _bars(self._console) if live else None
        self._write = write or self._print
        self._every, self._clock = every, clock
        self._lines: dict[str, TaskID] = {}
        self._told: dict[str, float] = {}
        self._seconds: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_RECENT))
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bars is not None:
            self._bars.stop()

    def epoch(self, record: EpochRecord, total_epochs: int) -> None:
        """An expert finished an epoch."""
        with self._lock:
            self._seconds[record.expert].append(record.seconds)
            left = self._left(record, total_epochs)
            if self._bars is not None:
                self._move(self._bars, record, total_epochs, left)
                return
            due = self._told.get(record.expert, -self._every) + self._every
            if record.epoch < total_epochs and self._clock() < due:
                return
            self._told[record.expert] = self._clock()
            self._write(_line(record, total_epochs, left))

    def round(self, record: RoundRecord) -> None:
        """A round ended: its candidate was measured on the validation split."""
        learner = "global learner" if record.weights else "learner"
        measured = record.validation
        self.say(
            f"round {record.round}, epoch {record.epoch}: {learner} on the validation split:"
            f" natural {_percent(measured.natural.value)}, robust {_percent(measured.robust.value)}"
        )

    def say(self, text: str) -> None:
        """A step began or ended."""
        with self._lock:
            self._write(text)

    def _print(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)

    def _left(self, record: EpochRecord, total_epochs: int) -> str:
        recent = self._seconds[record.expert]
        return _duration(sum(recent) / len(recent) * (total_epochs - record.epoch))

    def _move(self, bars: Bars, record: EpochRecord, total_epochs: int, left: str) -> None:
        if record.expert not in self._lines:
            self._lines[record.expert] = bars.add_task(
                record.expert, total=total_epochs, accuracy="", speed="", left=""
            )
        bars.update(
            self._lines[record.expert],
            completed=record.epoch,
            accuracy=_percent(record.accuracy),
            speed=_speed(record),
            left=left,
        )


def _bars(console: Console) -> Bars:
    return Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=12),
        TextColumn("epoch {task.completed:.0f}/{task.total:.0f}"),
        TextColumn("accuracy {task.fields[accuracy]}"),
        TextColumn("{task.fields[speed]} images/s"),
        TextColumn("{task.fields[left]} left"),
        console=console,
        refresh_per_second=4,
    )


def _line(record: EpochRecord, total_epochs: int, left: str) -> str:
    validation = record.validation
    measured = (
        ""
        if validation is None
        else f", validation: natural {_percent(validation.natural.value)}, robust {_percent(validation.robust.value)}"
    )
    return (
        f"{record.expert}: epoch {record.epoch}/{total_epochs}, accuracy {_percent(record.accuracy)}{measured},"
        f" {_speed(record)} images/s, {left} left"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _speed(record: EpochRecord) -> str:
    return f"{record.images / max(record.seconds, 1e-9):,.0f}"


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
