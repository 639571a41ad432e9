"""One part of `gpu_short.sh`, in a process of its own: measures, and keeps every figure at once."""

import argparse
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks import gpu_fast_ways, gpu_learning, gpu_parts, gpu_throughput, machine
from benchmarks.gpu_bench import Bench, LateError, WaitingError
from benchmarks.gpu_record import COMPLETE, FAILED, FILE, MORE, WAITS, Part, Record
from generalist import engine

MEASURES: dict[str, Callable[[Bench], None]] = {
    "machine": gpu_parts.machine_part,
    "step": gpu_parts.step_part,
    "graph": gpu_fast_ways.graph_part,
    "compile": gpu_fast_ways.compile_part,
    "throughput": gpu_throughput.throughput_part,
    "train": gpu_learning.train_part,
}


class Warnings(logging.Handler):
    """Keeps the library's warnings in a part, such as those about compiled code that was refused."""

    def __init__(self, part: Part) -> None:
        super().__init__(logging.WARNING)
        self._part = part

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it once, and print it."""
        text = record.getMessage()
        print(f"warning: {text}", file=sys.stderr, flush=True)
        if text not in self._part.warnings:
            self._part.warnings.append(text)


def follow_parent() -> None:
    """End with the process that started this one, even where that was killed: its end of the pipe is closed then."""

    def wait() -> None:
        os.read(0, 1)  # not by sys.stdin, whose lock the interpreter wants at its end
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def measured(bench: Bench, measure: Callable[[Bench], None]) -> None:
    """Let a part measure, and keep how it ended."""
    part, handler = bench.part, Warnings(bench.part)
    logging.getLogger("generalist").addHandler(handler)
    try:
        measure(bench)
        part.state = COMPLETE
    except LateError:
        part.state = MORE
    except WaitingError as waiting:
        part.state, part.note = WAITS, str(waiting)
    except Exception as error:  # noqa: BLE001  whatever it is, the next part runs
        traceback.print_exc()
        part.state, part.error = FAILED, traceback.format_exception_only(error)[-1].strip()
    finally:
        logging.getLogger("generalist").removeHandler(handler)
        bench.keep()


def main(words: Sequence[str] | None = None) -> int:
    """Run one part; returns 1 where it failed, and 2 where this machine can't run any."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("part")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seconds", type=float, required=True)
    arguments = parser.parse_args(words)
    follow_parent()
    on = machine.device("auto")
    if on.type == "cpu" and not arguments.tiny:
        print("torch sees no CUDA device here; to try this on a CPU: benchmarks/gpu_short.sh --tiny", file=sys.stderr)
        return 2
    folders = {"out": arguments.out, "work": arguments.work}
    files = [*(folder / FILE for folder in folders.values()), *([arguments.json] if arguments.json else [])]
    record = Record(files, tiny=arguments.tiny)
    bench = Bench(arguments.part, record, on=on, tiny=arguments.tiny, seconds=arguments.seconds, **folders)
    # Few cores lose time by threads that wait for each other; the CPU beside a GPU has many.
    with engine.threads(1 if on.type == "cpu" else torch.get_num_threads()):
        measured(bench, MEASURES[arguments.part])
    return 1 if bench.part.state == FAILED else 0


if __name__ == "__main__":
    sys.exit(main())
