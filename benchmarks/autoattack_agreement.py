"""Our cascade against the original's verdicts, image by image, on every reference configuration.

    python -m benchmarks.autoattack_agreement

Needs GENERALIST_AA_REFERENCE. The rules judge runs of `standard` against the networks as they are: per configuration
the original may break two images (or 1 %) that ours leaves; over all of them it may not break significantly more
that ours leaves than the reverse; and images that every run of the original breaks are broken by ours, but for one
in a thousand.
"""

import argparse
import json
import math
import multiprocessing
import platform
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.reference_models import NETWORKS, VARIANTS, Run, data, known, network, runs
from generalist.attacks import autoattack
from generalist.threats import Threat


@dataclass(frozen=True)
class Row:
    """One configuration: how ours did against the original.

    Attributes:
        configuration: `<network>/<threat>/<version or attack>`.
        kind: `standard`, `version` (plus, rand), `attack` (one alone) or `variant` (a network that hides its gradient).
        n: images.
        original, ours, best_known: robust accuracies; the last by all runs of the original, None where none is kept.
        only_original, only_ours: images that one of them alone broke.
        core, core_missed: images that every run of the original broke, where there are two at least, and how many of
            them ours did not.
        flags, warnings: our flags, and how many warnings the original gave.
        forward, backward: our passes per image.
        seconds: of our run, CPU time.
    """

    configuration: str
    kind: str
    n: int
    original: float
    ours: float
    best_known: float | None
    only_original: int
    only_ours: int
    core: int
    core_missed: int
    flags: tuple[str, ...]
    warnings: int
    forward: float
    backward: float
    seconds: float

    @property
    def holds(self) -> bool:
        """The rule for one configuration; attacks alone are noisier, so for them it is the one over all."""
        if self.kind == "attack":
            return no_weaker(self.only_original, self.only_ours)
        return few_misses(self.only_original, self.n)


def few_misses(only_original: int, n: int) -> bool:
    """Allow two images, or 1 %, that only the original broke: cascades that differ in the seed differ by as much."""
    return only_original <= max(2, 0.01 * n)


def no_weaker(only_original: int, only_ours: int) -> bool:
    """Apply McNemar's test, one-sided: what only the original broke is not significantly more."""
    return only_original <= only_ours + 2 * math.sqrt(only_original + only_ours)


def core_broken(missed: int, images: int) -> bool:
    """Allow one miss in a thousand images among those that every run of the original broke."""
    return 1000 * missed <= images


def verdict(rows: Sequence[Row]) -> dict[str, bool]:
    """Return whether each of the three rules holds for rows of kind `standard`."""
    judged = [row for row in rows if row.kind == "standard"]
    with_core = [row for row in judged if row.core]
    return {
        "few misses in each configuration": all(row.holds for row in judged),
        "no weaker over all": no_weaker(sum(r.only_original for r in judged), sum(r.only_ours for r in judged)),
        "stable core broken": core_broken(sum(r.core_missed for r in with_core), sum(r.n for r in with_core)),
    }


@dataclass(frozen=True)
class Job:
    """One run of ours: a version, or one attack alone, against a run of the original."""

    run: Run
    attack: str | None = None

    @property
    def name(self) -> str:
        return f"{self.run.network}/{self.run.norm}:{self.run.eps}/{self.attack or self.run.version}"

    @property
    def kind(self) -> str:
        if self.attack:
            return "attack"
        if self.run.network in VARIANTS:
            return "variant"
        return "standard" if self.run.version == "standard" else "version"


def jobs() -> list[Job]:
    """Return all of them: the original's first runs; alone also the first attack of each cascade."""
    found: dict[str, Job] = {}
    for run in runs(*NETWORKS, *VARIANTS):
        if run.seed or run.batch_size != 200:
            continue
        own = [Job(run, attack) for attack in run.alone] if run.broken is None else [Job(run)]
        if run.version == "standard" and run.broken is not None and run.network in NETWORKS:
            own.append(Job(run, "apgd-ce"))
        found |= {job.name: job for job in own if job.name not in found or job.run.alone}
    order = ("standard", "version", "variant", "attack")
    return sorted(found.values(), key=lambda job: order.index(job.kind))


def judge(job: Job, queries: int = 5000, rows: slice = slice(None)) -> Row:
    """Run ours and compare, on all images or some; `queries` of Square."""
    torch.set_num_threads(1)
    images, labels = (tensor[rows] for tensor in data())
    run, threat = job.run, Threat(job.run.norm, job.run.eps)
    began = time.process_time()
    if job.attack:
        theirs = (run.alone[job.attack] if run.alone else run.after[job.attack])[rows]
        result = autoattack(network(run.network), images, labels, threat, attacks=[job.attack], square_queries=queries)
    else:
        assert run.broken is not None
        theirs = run.broken[rows]
        result = autoattack(network(run.network), images, labels, threat, version=run.version, square_queries=queries)
    seconds = time.process_time() - began
    ours = ~result.robust
    best = None if job.attack else known(run)
    core = best.core[rows] if best and best.n_runs > 1 else torch.zeros_like(ours)
    n = len(images)
    return Row(
        configuration=job.name,
        kind=job.kind,
        n=n,
        original=1 - int(theirs.sum()) / n,
        ours=1 - int(ours.sum()) / n,
        best_known=1 - int(best.broken[rows].sum()) / n if best else None,
        only_original=int((theirs & ~ours).sum()),
        only_ours=int((ours & ~theirs).sum()),
        core=int(core.sum()),
        core_missed=int((core & ~ours).sum()),
        flags=result.flags,
        warnings=len(run.warnings),
        forward=int(result.passes.forward.sum()) / n,
        backward=int(result.passes.backward.sum()) / n,
        seconds=seconds,
    )


def main() -> None:
    """Print the tables and whether the rules hold."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--configuration", nargs="+", metavar="NAME", help="only those whose name begins with one")
    parser.add_argument("--list", action="store_true", help="print the names of all configurations and end")
    parser.add_argument("--processes", type=int, default=1, help="run so many at a time, one thread each")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows and the verdict there too")
    arguments = parser.parse_args()
    chosen = [job for job in jobs() if job.name.startswith(tuple(arguments.configuration or [""]))]
    if not chosen:
        parser.error("no configuration has such a name; --list shows them")
    if arguments.list:
        print(*(job.name for job in chosen), sep="\n")
        return
    began = time.perf_counter()
    rows = _rows(chosen, arguments.processes)
    for kind, title in TITLES.items():
        _print(title, [row for row in rows if row.kind == kind])
    rules = verdict(rows)
    if any(row.kind == "standard" for row in rows):
        print("\n" + "; ".join(f"{rule}: {'holds' if holds else 'BROKEN'}" for rule, holds in rules.items()))
    seconds = time.perf_counter() - began
    print(f"\n{platform.machine()}, torch {torch.__version__}: {seconds:.0f} s; seed 0, n = {rows[0].n} each")
    if arguments.json:
        result = {"rules": rules, "rows": [asdict(row) | {"holds": row.holds} for row in rows]}
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


TITLES = {
    "standard": "The standard cascade",
    "version": "Other versions",
    "variant": "Networks that hide their gradient (the original over-states some of them)",
    "attack": "Each attack alone, on all correctly classified images",
}


COLUMNS = (
    "configuration",
    "rule",
    "original",
    "ours",
    "best known",
    "only original",
    "only ours",
    "core missed",
    "forward",
    "backward",
    "flags",
)


def _rows(chosen: list[Job], processes: int) -> list[Row]:
    rows: list[Row] = []
    pool = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
    made: Iterable[Row] = pool.map(judge, chosen) if processes > 1 else map(judge, chosen)
    for row in made:
        rows.append(row)
        print(f"# {row.configuration}: {row.original:.3f} and {row.ours:.3f}, {row.seconds:.0f} s", flush=True)
    return rows


def _print(title: str, rows: list[Row]) -> None:
    if not rows:
        return
    print(f"\n{title}\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for row in rows:
        best = "" if row.best_known is None else f"{100 * row.best_known:.1f}"
        core = f"{row.core_missed} of {row.core}" if row.core else ""
        rule = "holds" if row.holds else "BROKEN"
        cells = [row.configuration, rule, f"{100 * row.original:.1f}", f"{100 * row.ours:.1f}", best]
        cells += [str(row.only_original), str(row.only_ours), core, f"{row.forward:.0f}", f"{row.backward:.0f}"]
        print(f"| {' | '.join(cells)} | {', '.join(row.flags)} |")


if __name__ == "__main__":
    main()
