"""All that a rented GPU machine can tell in a quarter of an hour, in parts that go on where they were cut.

Each part is a process of its own (`gpu_part`): what one of them breaks on the device, no other inherits. This process
has no torch; `gpu_short.sh` calls it.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu_record import COMPLETE, FAILED, FILE, WAITS, Part, Record, flat

DONE, ERROR, WRONG_INPUT, TO_BE_CONTINUED = 0, 1, 2, 3
"""Exit codes."""


@dataclass(frozen=True)
class Plan:
    """What a part is.

    Attributes:
        minutes: that it took on an H200.
        tells: its figures.
        needs: besides torch and the library.
    """

    minutes: float
    tells: str
    needs: str = "nothing more"


PARTS = {
    "machine": Plan(0.1, "versions, the device and its peaks"),
    "step": Plan(0.5, "a training step: naive, plain and fast; whether it is reproducible, and what that costs"),
    "graph": Plan(0.3, "PGD step by step and repeated by a CUDA graph", "CUDA"),
    "compile": Plan(0.5, "PGD by torch.compile", "Triton and a C compiler"),
    "throughput": Plan(1.5, "PGD-10 and AutoAttack's attacks in float32, TF32 and bfloat16; gradients by the CPU's"),
    "train": Plan(3.5, "natural training, PGD-AT, and AutoAttack on their weights", "files of CIFAR-10"),
}
MOST_SECONDS, MOST_TINY_SECONDS = 240, 60
"""Of a part in one call."""

LEAST_SHARE = 0.5
"""Of its time that a part needs left to begin in a call that has run another."""


def plan(record: Record) -> str:
    """Return a line for each part: minutes, state, what it tells and needs."""
    lines = []
    for name, own in PARTS.items():
        part = record.parts.get(name)
        state = "not begun" if part is None else part.state
        lines.append(f"{name:<11}{own.minutes:>4} min  {state:<16} {own.tells}; needs {own.needs}")
        if part is not None and part.note:
            lines.append(f"{'':<38}{part.note}")
    total = sum(own.minutes for own in PARTS.values())
    return "\n".join([*lines, f"{'in all':<11}{total:>4g} min"])


def run(name: str, record: Record, arguments: argparse.Namespace, seconds: float) -> Record:
    """Run a part in a process of its own, for so many seconds, and return what is known then.

    Raises:
        SystemExit: the part can't be run here, which it has said.
    """
    words = [name, "--out", str(arguments.out), "--work", str(arguments.work), "--seconds", f"{seconds:.0f}"]
    words += [*(["--tiny"] if arguments.tiny else []), *(["--json", str(arguments.json)] if arguments.json else [])]
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.gpu_part", *words], stdin=subprocess.PIPE)  # noqa: S603  our own
    with process:  # its end of the pipe tells it that this process is gone, even where that was killed
        code = process.wait()
    if code == WRONG_INPUT:
        raise SystemExit(WRONG_INPUT)
    found = Record(record.files, tiny=arguments.tiny)
    part = found.parts.setdefault(name, Part("no device"))
    if code != 0 and part.state != FAILED:
        part.state, part.error = FAILED, f"the process ended with {code}, see above"
        found.write(part)
    return found


def summary(record: Record, names: Sequence[str]) -> str:
    """Return all figures of these parts, a line each."""
    lines = []
    for name in names:
        part = record.parts.get(name)
        if part is None:
            lines.append(f"\n## {name}: not begun")
            continue
        lines.append(f"\n## {name}: {part.state}, {part.seconds:.0f} s, {part.device}")
        lines += [f"{what} | {value}" for what, value in flat(part.figures)]
        remarks = [("note", part.note), ("error", part.error), *(("warning", text) for text in part.warnings)]
        lines += [f"{kind} | {text}" for kind, text in remarks if text]
    return "\n".join(lines)


def exit_code(record: Record, names: Sequence[str]) -> int:
    """Return 1 where one of these parts failed, 3 where one has more to do, else 0."""
    states = [record.parts[name].state if name in record.parts else None for name in names]
    if FAILED in states:
        return ERROR
    return DONE if all(state == COMPLETE for state in states) else TO_BE_CONTINUED


def main(words: Sequence[str] | None = None) -> int:
    """Run the parts that are not complete, or those that are named, and print all figures."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(prog="benchmarks/gpu_short.sh", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; also where it is complete")
    parser.add_argument("--tiny", action="store_true", help="the network for digits alone, which takes a CPU a minute")
    parser.add_argument("--plan", action="store_true", help="say what the parts are and which are done, and run none")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures there, too")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--work", type=Path, required=True, help="folder of what is kept between calls")
    parser.add_argument("--minutes", type=float, default=9, help="after which this call measures nothing more")
    arguments = parser.parse_args(words)
    if unknown := [name for name in arguments.parts if name not in PARTS]:
        parser.error(f"no part {unknown[0]}; there are {', '.join(PARTS)}")
    files = [arguments.out / FILE, arguments.work / FILE, *([arguments.json] if arguments.json else [])]
    record = Record(files, tiny=arguments.tiny)
    if arguments.plan:
        print(plan(record))
        return DONE
    names = list(dict.fromkeys(arguments.parts)) or list(PARTS)
    todo = [name for name in names if arguments.parts or not _complete(record, name)]
    for name in todo:
        left = 60 * arguments.minutes - (time.monotonic() - began)
        if name != todo[0] and left < LEAST_SHARE * 60 * PARTS[name].minutes:
            continue
        if _complete(record, name):
            record.forget(name)
        record = run(name, record, arguments, min(left, MOST_TINY_SECONDS if arguments.tiny else MOST_SECONDS))
    record.write()  # the files that were empty have it all, too, where nothing was left to do
    print(summary(record, names))
    return _ended(record, names)


def _complete(record: Record, name: str) -> bool:
    return name in record.parts and record.parts[name].state == COMPLETE


def _ended(record: Record, names: Sequence[str]) -> int:
    """Say what is to be done next, and return the exit code."""
    code = exit_code(record, names)
    waiting = [name for name in names if name in record.parts and record.parts[name].state == WAITS]
    if code == TO_BE_CONTINUED:
        print(
            f"\nthere is more to do{f', with more files ({waiting[0]})' if waiting else ''}: run the same command again"
        )
    return code


if __name__ == "__main__":
    sys.exit(main())
