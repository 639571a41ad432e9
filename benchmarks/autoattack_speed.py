"""Our cascade beside the plain one: passes, seconds and what they find, in one run.

    python -m benchmarks.autoattack_speed

Needs GENERALIST_AA_REFERENCE. Seconds are CPU time of this process on one thread, ours and the plain cascade taking
turns, so a busy machine hurts both. A ratio says how many times more the plain cascade needs.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.large_network import Costs, large
from benchmarks.plain_autoattack import QUERIES, plain_autoattack
from benchmarks.reference_models import Run, data, network, runs
from generalist.attacks import autoattack
from generalist.threats import Threat

QUICK_QUERIES = 500


@dataclass(frozen=True)
class Side:
    """One cascade on one configuration: passes per image, seconds in all, and which images stay robust."""

    forward: float
    backward: float
    seconds: float
    robust: torch.Tensor

    @property
    def accuracy(self) -> float:
        return int(self.robust.sum()) / len(self.robust)

    @property
    def work(self) -> float:
        """In forward passes, of which a backward pass costs two."""
        return self.forward + 2 * self.backward


@dataclass(frozen=True)
class Pair:
    """A configuration and what both made of it."""

    name: str
    ours: Side
    plain: Side

    @property
    def ratios(self) -> dict[str, float]:
        plain, ours = self.plain, self.ours
        return {
            "seconds": plain.seconds / ours.seconds,
            "work": plain.work / ours.work,
            "forward": plain.forward / ours.forward,
            "backward": plain.backward / max(ours.backward, 1e-9),
        }


def ours(run: Run, version: str, queries: int) -> Side:
    """Return our cascade."""
    images, labels = data()
    model, threat = network(run.network), Threat(run.norm, run.eps)
    began = time.process_time()
    result = autoattack(model, images, labels, threat, version=version, square_queries=queries)
    seconds = time.process_time() - began
    n = len(images)
    return Side(int(result.passes.forward.sum()) / n, int(result.passes.backward.sum()) / n, seconds, result.robust)


def plain(run: Run, queries: int) -> Side:
    """Return the plain cascade."""
    images, labels = data()
    verdicts = plain_autoattack(network(run.network), images, labels, run.norm, run.eps, queries=queries)
    total, n = verdicts.total, len(images)
    return Side(total.forward / n, total.backward / n, total.seconds, verdicts.robust["square"])


def pair(run: Run, queries: int, repeats: int) -> Pair:
    """Time both in turn, as often as asked; seconds are medians."""
    own, other = [], []
    for _ in range(repeats):
        own.append(ours(run, "standard", queries))
        other.append(plain(run, queries))
    return Pair(f"{run.network}/{run.norm}:{run.eps}", _median(own), _median(other))


def _median(sides: list[Side]) -> Side:
    first = sides[0]
    return Side(first.forward, first.backward, statistics.median(side.seconds for side in sides), first.robust)


def _warm_up(run: Run) -> None:
    """Let libraries load and caches fill."""
    images, labels = data()
    few, model, threat = slice(0, 20), network(run.network), Threat(run.norm, run.eps)
    autoattack(model, images[few], labels[few], threat, attacks=["apgd-ce", "square"], square_queries=20)
    plain_autoattack(model, images[few], labels[few], run.norm, run.eps, attacks=["apgd-ce", "square"], queries=20)


def chosen(names: list[str] | None) -> list[Run]:
    """Return the adversarially trained networks' first standard runs, Linf and L2."""
    found = [
        run
        for run in runs("plain_at", "bn_at")
        if run.norm != "l1" and (run.version, run.seed, run.batch_size) == ("standard", 0, 200) and run.after
    ]
    return [run for run in found if not names or f"{run.network}/{run.norm}:{run.eps}" in names]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help=f"one configuration, Square with {QUICK_QUERIES} queries")
    parser.add_argument("--configuration", nargs="+", metavar="NAME", help="such as plain_at/linf:0.2; default: all")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each side, in turn")
    parser.add_argument("--images", type=int, default=64, help="for ResNet-18 on the CPU; 0 leaves it out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write ratios, machine and versions there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    queries = QUICK_QUERIES if arguments.quick else QUERIES
    configurations = chosen(["plain_at/linf:0.2"] if arguments.quick else arguments.configuration)
    if not configurations:
        names = ", ".join(f"{run.network}/{run.norm}:{run.eps}" for run in chosen(None))
        parser.error(f"there is no such configuration; choose from {names}")
    if arguments.quick:
        print(f"Quick: one configuration, and Square with {queries} queries instead of {QUERIES} on both sides.\n")
    _warm_up(configurations[0])
    pairs = []
    for run in configurations:
        pairs.append(pair(run, queries, arguments.repeats))
        print(f"# {pairs[-1].name}: {pairs[-1].plain.seconds:.0f} s and {pairs[-1].ours.seconds:.0f} s", flush=True)
    ratios = {f"{own.name}/{kind}": ratio for own in pairs for kind, ratio in own.ratios.items()}
    _print_pairs(pairs)
    if not arguments.quick:
        ratios |= dict(_print_quick(configurations, pairs))
        for costs in large(arguments.images, configurations[-1]) if arguments.images else ():
            ratios |= _print_large(costs)
    machine = _machine()
    print(f"\n{machine}, torch {torch.__version__}, one thread")
    if arguments.json:
        versions = {"torch": torch.__version__, "python": platform.python_version()}
        result = {"ratios": ratios, "machine": machine, "versions": versions}
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _machine() -> str:
    load = os.getloadavg()[0]
    return f"{platform.machine()}, {os.cpu_count()} cores, load average {load:.1f}"


def _row(*cells: object) -> None:
    print(f"| {' | '.join(str(cell) for cell in cells)} |")


def _print_pairs(pairs: list[Pair]) -> None:
    print("\nThe standard cascade, plain / ours\n")
    figures = ("seconds", "forward", "backward", "robust accuracy")
    columns = (
        "seconds ×",
        "work ×",
        "forward ×",
        "backward ×",
        "configuration",
        *figures,
        "only plain broke",
        "only ours",
    )
    _row(*columns)
    _row(*["---"] * len(columns))
    for own in pairs:
        a, b = own.plain, own.ours
        _row(
            *(f"{ratio:.2f}" for ratio in own.ratios.values()),
            own.name,
            f"{a.seconds:.1f} / {b.seconds:.1f}",
            f"{a.forward:.0f} / {b.forward:.0f}",
            f"{a.backward:.0f} / {b.backward:.0f}",
            f"{100 * a.accuracy:.1f} / {100 * b.accuracy:.1f}",
            int((~a.robust & b.robust).sum()),
            int((~b.robust & a.robust).sum()),
        )


def _print_quick(configurations: list[Run], pairs: list[Pair]) -> Iterator[tuple[str, float]]:
    print("\nOurs, standard / quick: what the quick version saves, and what it leaves\n")
    _row("seconds ×", "work ×", "configuration", "forward", "backward", "robust accuracy")
    _row(*["---"] * 6)
    for run, own in zip(configurations, pairs, strict=True):
        a, b = own.ours, ours(run, "quick", QUERIES)
        yield f"{own.name}/quick/seconds", a.seconds / b.seconds
        yield f"{own.name}/quick/work", a.work / b.work
        _row(
            f"{a.seconds / b.seconds:.1f}",
            f"{a.work / b.work:.1f}",
            own.name,
            f"{a.forward:.0f} / {b.forward:.0f}",
            f"{a.backward:.0f} / {b.backward:.0f}",
            f"{100 * a.accuracy:.1f} / {100 * b.accuracy:.1f}",
        )


def _print_large(costs: Costs) -> dict[str, float]:
    print(f"\n{costs.title}\n")
    _row("seconds ×", "step", "milliseconds per image and step", "steps of a survivor")
    _row(*["---"] * 4)
    for step in costs.steps:
        each = f"{1000 * step.plain:.2f} / {1000 * step.ours:.2f}"
        _row(f"{step.ratio:.2f}", step.name, each, f"{step.plain_count:.0f} / {step.ours_count:.0f}")
    _row(f"{costs.ratio:.2f}", "cascade, extrapolated", f"{costs.plain:.0f} s / {costs.ours:.0f} s a survivor", "")
    return {f"{costs.name}/{step.name}": step.ratio for step in costs.steps} | {f"{costs.name}/cascade": costs.ratio}


if __name__ == "__main__":
    main()
