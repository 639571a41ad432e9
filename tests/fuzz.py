"""`make fuzz`: hundreds of bad inputs for every reader, counted: handled, tracebacks and hangs.

python -m tests.fuzz [--seed N] [--each N]
"""

import argparse
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from tests.bad_inputs import KINDS, TOKENS, Edit, deliberate, edited, readers, special

PATIENCE = 15.0
"""Seconds for one input; `COMMAND` for one command."""
COMMAND = 60.0


class HangError(BaseException):
    """An input took too long."""


class Tally:
    """What came of all inputs."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def note(self, name: str, ask: Callable[[], bool], *, patience: float = PATIENCE) -> None:
        """Try one input."""
        signal.setitimer(signal.ITIMER_REAL, patience)
        try:
            outcome = "accepted" if ask() else "refused"
        except HangError:
            outcome = "hangs"
        except Exception:  # noqa: BLE001  that is what is counted
            outcome = "tracebacks"
            print(f"--- {name}\n{traceback.format_exc(limit=-6)}", file=sys.stderr)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if outcome == "hangs":
            print(f"--- {name} hangs", file=sys.stderr)
        self.counts[outcome] += 1


def _hang(_number: int, _frame: FrameType | None) -> None:
    raise HangError


def _random(numbers: random.Random) -> list[Edit]:
    return [
        (numbers.randrange(KINDS), numbers.random(), numbers.choice((*TOKENS, numbers.randbytes(4))))
        for _ in range(numbers.randint(1, 3))
    ]


def _command(folder: Path, words: list[str], **variables: str) -> bool:
    """Run a command as a user starts it."""
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), **variables}
    program = [sys.executable, "-c", "from pipelines.cli import main; main()", *words]
    try:
        done = subprocess.run(program, cwd=folder, env=environment, capture_output=True, timeout=COMMAND, check=False)
    except subprocess.TimeoutExpired:
        raise HangError from None
    told = done.stderr.decode(errors="replace")
    if "Traceback" in told or done.returncode not in (0, 1, 2) or b"\x1b" in done.stdout + done.stderr:
        raise AssertionError(f"exit code {done.returncode}: {told[-2000:]}")
    return done.returncode == 0


def _commands(folder: Path) -> list[tuple[list[str], dict[str, str]]]:
    folder.mkdir()
    (folder / "nested.yaml").write_text("a: " + "[" * 5000, encoding="utf-8")
    os.mkfifo(folder / "fifo")
    (folder / "\x1b[2J[red].onnx").write_bytes(b"no")
    return [
        (["config", "check", "--params", "nested.yaml"], {}),
        (["config", "check", "--params", "/dev/zero"], {}),
        (["trace", "\x1b[2J[red].onnx"], {}),
        (["attack", "fifo", "--threat", "linf:0.1", "--data", "fifo"], {}),
        (["merge", "fifo", "/dev/zero"], {}),
        (["store", "list"], {"GENERALIST_STORE": "zip://"}),
        (["rollback", "--name", "x"], {"MLFLOW_TRACKING_URI": "postgresql://h:port/x"}),
    ]


def main() -> int:
    """Try all of it; 0 where nothing failed."""
    parser = argparse.ArgumentParser(description="Hundreds of bad inputs for every reader.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--each", type=int, default=30, help="random edits for each reader")
    options = parser.parse_args()
    numbers, tally = random.Random(options.seed), Tally()
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGALRM, _hang)
    with tempfile.TemporaryDirectory(prefix="generalist-fuzz-") as place:
        folder = Path(place)
        for name, reader in readers(folder / "readers").items():
            for _ in range(options.each):
                edits = _random(numbers)
                given = edited(reader.whole, edits)
                tally.note(f"{name}: {edits!r:.200}", lambda own=given, of=reader: of.tried(own))  # type: ignore[misc]
            for kind, ask in special(reader):
                tally.note(f"{name}: {kind}", ask)
        for name, ask in deliberate(folder / "deliberate"):
            tally.note(name, ask)
        for words, variables in _commands(folder / "commands"):
            tally.note(
                " ".join(words),
                lambda own=words, env=variables: _command(folder / "commands", own, **env),  # type: ignore[misc]
                patience=COMMAND + 5,
            )
    counts = tally.counts
    print(
        f"bad inputs tried: {counts.total()}\n"
        f"handled: {counts['accepted'] + counts['refused']} ({counts['refused']} refused in one sentence)\n"
        f"tracebacks: {counts['tracebacks']}\nhangs: {counts['hangs']}"
    )
    return 1 if counts["tracebacks"] or counts["hangs"] or counts.total() < 500 else 0


if __name__ == "__main__":
    raise SystemExit(main())
