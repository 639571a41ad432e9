"""How far a run is: a live line for each expert, then for each learner under attack; plain lines without a terminal."""

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

from generalist.attacks import AttackProgress
from generalist.records import EpochRecord, RoundRecord
from generalist.untrusted import lines, printable
from pipelines.terminal import Terminal

_RECENT = 5  # epochs whose mean duration foretells the others'


class Progress:
    """Follows a run; experts and attacks report from several threads. Enter it to show the live lines.

    Args:
        console: where to show it; by default standard error. Its live lines need a terminal.
        write: takes plain lines instead, such as a logger of Prefect's.
        every: seconds between two plain lines of one expert or attack; its end always gets one.
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
        self._console = console or Terminal(stderr=True)
        live = write is None and self._console.is_terminal and not self._console.is_dumb_terminal
        self._bars = _bars(self._console) if live else None
        self._write = write or self._print
        self._every, self._clock = every, clock
        self._lines: dict[str, TaskID] = {}
        self._told: dict[str, float] = {}
        self._seconds: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_RECENT))
        self._attacks: dict[str, _Attack] = {}
        self._paces: dict[str, float] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bars is not None:
            self._bars.stop()

    def epoch(self, record: EpochRecord, total_epochs: int) -> None:
        """Show that an expert finished an epoch."""
        with self._lock:
            self._seconds[record.expert].append(record.seconds)
            left = self._time_left(record, total_epochs)
            if self._bars is not None:
                self._move(self._bars, record, total_epochs, left)
                return
            due = self._told.get(record.expert, -self._every) + self._every
            if record.epoch < total_epochs and self._clock() < due:
                return
            self._told[record.expert] = self._clock()
            self._write(_line(record, total_epochs, left))

    def round(self, record: RoundRecord) -> None:
        """Show that a round ended: its candidate was measured on the validation split."""
        learner = "global learner" if record.weights else "learner"
        measured = record.validation
        self.say(
            f"round {record.round}, epoch {record.epoch}: {learner} on the validation split:"
            f" natural {_percent(measured.natural.value)}, robust {_percent(measured.robust.value)}"
        )

    def attack(self, learner: str, standing: AttackProgress) -> None:
        """Show that an attack on a learner began, or went on; a learner is under one attack at a time."""
        with self._lock:
            self._remove_training_bars()
            before = self._attacks.get(learner)
            if before is not None and before.last.attack != standing.attack:
                self._end(learner, before)  # its last runs had no images left
            attack = self._attacks.setdefault(
                learner, _Attack(standing, self._clock(), self._paces.get(standing.attack))
            )
            attack.go_on(standing, self._clock())
            if standing.done >= 1:
                self._end(learner, attack)
            elif self._bars is not None:
                self._show(self._bars, learner, attack)
            else:
                self._write_attack(learner, attack)

    def say(self, text: str) -> None:
        """Show that a step began or ended."""
        with self._lock:
            self._write(text)

    def _print(self, text: str) -> None:
        with suppress(OSError):  # a log on a full disk is no reason to stop a training
            self._console.print(lines(text), markup=False, emoji=False, highlight=False, soft_wrap=True)

    def _remove_training_bars(self) -> None:
        if self._bars is not None:
            for line in self._lines.values():
                self._bars.remove_task(line)
            self._lines.clear()

    def _end(self, learner: str, attack: "_Attack") -> None:
        seconds = self._clock() - attack.since
        self._paces[attack.last.attack] = seconds / max(attack.first.robust * (1 - attack.first.done), 1)
        if self._bars is not None and attack.line is not None:
            self._bars.remove_task(attack.line)
        del self._attacks[learner]
        self._write(f"{learner}: {attack.last.attack}: {attack.standing}, after {_duration(seconds)}")

    def _show(self, bars: Bars, learner: str, attack: "_Attack") -> None:
        if attack.line is None:
            title, left = printable(f"{learner}: {attack.last.attack}"), lambda: attack.left(self._clock())
            attack.line = bars.add_task(title, total=1.0, told=attack.standing, left=left)
        bars.update(attack.line, completed=attack.last.done, told=attack.standing)

    def _write_attack(self, learner: str, attack: "_Attack") -> None:
        if self._clock() >= self._told.get(learner, -self._every) + self._every:
            self._told[learner] = self._clock()
            left = attack.left(self._clock())
            done = f"{learner}: {attack.last.attack}: {100 * attack.last.done:.0f} %, {attack.standing}"
            self._write(f"{done}, {left}" if left else done)

    def _time_left(self, record: EpochRecord, total_epochs: int) -> str:
        recent = self._seconds[record.expert]
        return _duration(sum(recent) / len(recent) * (total_epochs - record.epoch))

    def _move(self, bars: Bars, record: EpochRecord, total_epochs: int, left: str) -> None:
        if record.expert not in self._lines:
            self._lines[record.expert] = bars.add_task(printable(record.expert), total=total_epochs, told="", left=str)
        done = f"epoch {record.epoch}/{total_epochs}"
        bars.update(
            self._lines[record.expert],
            completed=record.epoch,
            told=f"{done} accuracy {_percent(record.accuracy)} {_speed(record)} images/s",
            left=lambda: f"{left} left",
        )


class _Attack:
    """An attack under way.

    Args:
        standing: its first.
        since: when that was.
        pace: seconds for each image that such an attack took on another learner.
    """

    def __init__(self, standing: AttackProgress, since: float, pace: float | None) -> None:
        self.first, self.since, self._pace = standing, since, pace
        self.last, self._seen = standing, since
        self.line: TaskID | None = None

    def go_on(self, standing: AttackProgress, now: float) -> None:
        """Take note that it has come this far."""
        self.last, self._seen = standing, now

    @property
    def standing(self) -> str:
        """Robust so far, and the survivors."""
        share = self.last.robust / max(self.last.n, 1)
        return f"robust so far {_percent(share)}, {self.last.robust} of {self.last.n} survive"

    def left(self, now: float) -> str:
        """Return the time that is left, as far as that is known."""
        gained, to_do = self.last.done - self.first.done, 1 - self.first.done
        if gained > 0:
            whole = (self._seen - self.since) * to_do / gained
        elif self._pace is not None:
            whole = self._pace * self.first.robust * to_do
        else:
            return ""
        return f"{_duration(max(whole - (now - self.since), 0))} left"


class _LeftColumn(ProgressColumn):
    """The time left, as it is when it is looked at."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["left"]())


def _bars(console: Console) -> Bars:
    return Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=12),
        TextColumn("{task.fields[told]}", markup=False),
        _LeftColumn(),
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
