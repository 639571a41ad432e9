"""The figures of `gpu_short.sh`: one JSON kept in several places, from which the next call goes on. No torch here."""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FILE = "gpu_short.json"
COMPLETE, MORE, WAITS, FAILED = "complete", "more to do", "waits for files", "failed"
"""States of a part; one that was cut off says that there is more to do."""


@dataclass
class Part:
    """What is known of a part.

    Attributes:
        device: on which its figures were measured.
        state: see `COMPLETE` and its neighbours.
        seconds: that all calls have spent on it.
        figures: numbers, texts and tables of them, by name.
        warnings: what the library said, such as why something was refused.
        note: what it lacks, such as files or a compiler.
        error: the last line of a failure.
        written: Unix time of the last change.
    """

    device: str
    state: str = MORE
    seconds: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    note: str | None = None
    error: str | None = None
    written: float = 0.0


class Record:
    """The parts by name, read from files of which any may be missing, and written to all of them."""

    def __init__(self, files: Sequence[Path], *, tiny: bool) -> None:
        """Take each part from the file that has it newest; figures of another size don't count."""
        self.files, self._tiny = list(dict.fromkeys(files)), tiny
        self.parts: dict[str, Part] = {}
        for file in self.files:
            whole = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
            if whole.get("tiny") != tiny:
                continue
            for name, values in whole["parts"].items():
                part = Part(**values)
                if name not in self.parts or part.written > self.parts[name].written:
                    self.parts[name] = part

    def begun(self, name: str, device: str) -> Part:
        """Return a part to go on with; figures of another device are dropped."""
        part = self.parts.get(name)
        if part is None or part.device != device:
            part = Part(device)
        part.state, part.note, part.error = MORE, None, None
        self.parts[name] = part
        self.write(part)
        return part

    def forget(self, name: str) -> None:
        """Drop a part's figures, so that it is measured anew."""
        if self.parts.pop(name, None) is not None:
            self.write()

    def write(self, changed: Part | None = None) -> None:
        """Replace all files, each at once: whoever is killed meanwhile leaves the old or the new one."""
        if changed is not None:
            changed.written = time.time()
        whole = {"tiny": self._tiny, "parts": {name: asdict(part) for name, part in self.parts.items()}}
        content = json.dumps(whole, indent=1) + "\n"
        for file in self.files:
            file.parent.mkdir(parents=True, exist_ok=True)
            scratch = file.with_name(f".{file.name}.part")
            scratch.write_text(content, encoding="utf-8")
            os.replace(scratch, file)


def flat(figures: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return names and values for a list: tables become several lines, numbers have four digits."""
    lines: list[tuple[str, str]] = []
    for name, value in figures.items():
        if isinstance(value, dict):
            lines += flat(value, f"{prefix}{name}: ")
        else:
            rounded = isinstance(value, float)
            lines.append((prefix + name, _rounded(value) if rounded else str(value)))
    return lines


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
