"""What a part of `gpu_short.sh` measures with: the device, the configuration, and where figures go."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from benchmarks.gpu_record import Record, flat
from benchmarks.roofline import Peaks
from benchmarks.sides import CASES, GREY, Case, Ours

T = TypeVar("T")


class LateError(Exception):
    """The part's time is over; what it has is kept, and the next call goes on."""


class WaitingError(Exception):
    """Something has to be brought first; the message says what."""


class Bench:
    """Where a part measures, and where its figures go.

    Attributes:
        on: the device.
        tiny: whether everything is as small as can be.
        case: the configuration that is measured.
        out, work: folders of the results, and of what is kept between calls.
        part: the figures, warnings and notes of this part.
        parts: those of all.
    """

    def __init__(
        self, name: str, record: Record, *, on: torch.device, tiny: bool, out: Path, work: Path, seconds: float
    ) -> None:
        self.on, self.tiny, self.out, self.work = on, tiny, out, work
        self.case = Case("digits", GREY, 64, ("model.width=4",)) if tiny else CASES["resnet18_float32"]
        self._name, self._record = name, record
        self.part, self.parts = record.begun(name, device_name(on)), record.parts
        self._began, self._seconds, self._before = time.monotonic(), seconds, self.part.seconds
        self._measured = False

    @property
    def left(self) -> float:
        """Seconds until the part's time is over."""
        return self._seconds - (time.monotonic() - self._began)

    def figure(self, name: str, measure: Callable[[], T]) -> T:
        """Return what is stored under a name; where there is nothing yet, measure it and store it.

        Raises:
            LateError: the time is over, and this call has measured something already.
        """
        figures: dict[str, Any] = self.part.figures
        if name not in figures:
            if self._measured and self.left < 0:
                raise LateError
            figures[name] = measure()
            self._measured = True
            self.keep()
            for what, value in flat({name: figures[name]}):
                print(f"{self._name}: {what} | {value}", flush=True)
        stored: T = figures[name]
        return stored

    def keep(self) -> None:
        """Write the part as it is now."""
        self.part.seconds = self._before + time.monotonic() - self._began
        self._record.write(self.part)

    def ours(self, *overrides: str) -> Ours:
        """Return both experts of the configuration with more overrides, at its initial weights."""
        return Ours(self.case, self.on, *overrides)

    def peaks(self) -> Peaks:
        """Return the device's peaks, measured in this part."""

        def measured() -> dict[str, float]:
            peaks = Peaks.of(self.on, quick=self.tiny)
            return {name: own / 1e12 for name, own in (peaks.products | {"copy": peaks.copy}).items()}

        found = {name: 1e12 * own for name, own in self.figure("peaks, TFLOP/s (copy: TB/s)", measured).items()}
        return Peaks({name: own for name, own in found.items() if name != "copy"}, found["copy"])


def device_name(on: torch.device) -> str:
    """Return what decides the figures: the device and the version of torch."""
    return f"{torch.cuda.get_device_name(on) if on.type == 'cuda' else 'CPU'}, torch {torch.__version__}"
