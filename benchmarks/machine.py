"""Where a benchmark runs: the device, the clock, and what is printed and written beside every figure."""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch


def arguments(description: str | None, *, quick: str | None = None) -> argparse.ArgumentParser:
    """Return a parser with what every benchmark takes; with --quick where there is something to say about it."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    if quick is not None:
        parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write ratios, machine and versions there")
    return parser


def add_trainings(parser: argparse.ArgumentParser, *, seeds: int) -> None:
    """Add --seeds and --set, for benchmarks that train over seeds."""
    parser.add_argument("--seeds", type=_count, default=seeds, help="seeds 0, 1, …")
    parser.add_argument("--set", action="append", default=[], help="an override for all, such as training.epochs=20")


def _count(written: str) -> int:
    if not written.isdecimal() or int(written) < 1:
        raise argparse.ArgumentTypeError(f"{written}: a whole number, one at least")
    return int(written)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add the option --device."""
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="auto: CUDA where it is")


def device(name: str) -> torch.device:
    """Return the device of that name; `auto` is CUDA where there is one."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def seconds(call: Callable[[], object], on: torch.device) -> float:
    """Return the seconds of a call: CPU time, which is steadier on a shared machine; on CUDA the time that passes."""
    if on.type == "cpu":
        began = time.process_time()
        call()
        return time.process_time() - began
    return wall_seconds(call, on)


def wall_seconds(call: Callable[[], object], on: torch.device) -> float:
    """Return the time that passes during a call, with all the work that it launched on the device."""
    if on.type == "cuda":
        torch.cuda.synchronize(on)
    began = time.perf_counter()
    call()
    if on.type == "cuda":
        torch.cuda.synchronize(on)
    return time.perf_counter() - began


def machine(on: torch.device | None = None) -> str:
    """Return words such as `x86_64, 2 cores, load average 1.3`; with CUDA, the device's name first."""
    own = f"{platform.machine()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}"
    return f"{torch.cuda.get_device_name(on)}, {own}" if on is not None and on.type == "cuda" else own


def versions() -> dict[str, str]:
    """Return the versions of what decides the figures."""
    found = {"torch": torch.__version__, "python": platform.python_version()}
    return found | ({"cuda": torch.version.cuda} if torch.version.cuda else {})


def tell(ratios: Mapping[str, Any], on: torch.device, file: Path | None, **more: Any) -> None:
    """Print machine and versions, and write them with the ratios and `more` as JSON where a file is named."""
    print(f"\n{machine(on)}; {', '.join(f'{name} {own}' for name, own in versions().items())}")
    if file is not None:
        result = {"ratios": ratios, "machine": machine(on), "versions": versions(), **more}
        file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
