"""PGD's loop by each way that there is."""

import statistics
from dataclasses import asdict, dataclass

import torch

from benchmarks import compiler_cache, machine
from benchmarks.gpu_bench import Bench
from benchmarks.sides import Ours, batch_of
from generalist import engine
from generalist.attacks import pgd
from generalist.attacks.losses import cross_entropy
from generalist.platform_fingerprint import has_compiler
from generalist.tensors import Batch
from generalist.threats import Threat

WAYS = {
    "eager": ("engine.compile=false", False),
    "graph": ("engine.compile=false", True),
    "compiled": ("engine.compile=true", False),
    "compiled, graph": ("engine.compile=true", True),
}
"""Of PGD's loop: an override, and whether it is repeated by a CUDA graph."""

THREAT = Threat("linf", 8 / 255)
LARGE = 1024
"""Images that keep a large GPU busy; a training batch may not."""

TURNS = 5


@dataclass(frozen=True)
class Speed:
    """How fast something is by one way.

    Attributes:
        images_a_second: once it is ready; the median of several calls.
        ready_seconds: wall clock of its first three calls, in which it compiles, records and compares.
        equal_pixels: the share of pixels within 1e-4 of the eager ones.
        taken: whether it was computed so; what fails falls back to the eager way, with a warning.
        refused: the warning.
    """

    images_a_second: float
    ready_seconds: float
    equal_pixels: float
    taken: bool
    refused: str | None


def steps(bench: Bench) -> int:
    """Return the steps of PGD."""
    return 3 if bench.tiny else 10


def attacked(ours: Ours, batch: Batch, count: int) -> torch.Tensor:
    """Return images [batch, channels, height, width] after so many steps of PGD from the clean ones."""
    with engine.arithmetic(ours.on, tf32=ours.config.engine.tf32):
        return pgd(ours.frozen, batch.images, batch.labels, THREAT, steps=count, random_start=False)


def training_pass(ours: Ours, batch: Batch) -> None:
    """Compute the gradients of all weights of the natural expert; the caller sets the arithmetic."""
    model = ours.natural.learner.model
    model.zero_grad()
    cross_entropy(model(batch.images), batch.labels).mean().backward()


def pgd_speed(bench: Bench, way: str, batch: Batch, *overrides: str) -> Speed:
    """Measure PGD's loop by one of `WAYS`, with more overrides, beside the eager loop."""
    override, repeated = WAYS[way]
    ours, eager = bench.ours(override, *overrides), bench.ours("engine.compile=false", *overrides)
    eager.frozen.graphs = None
    if not repeated:
        ours.frozen.graphs = None
    expected, warned = attacked(eager, batch, steps(bench)), len(bench.part.warnings)

    def call() -> torch.Tensor:
        return attacked(ours, batch, steps(bench))

    ready = machine.wall_seconds(lambda: [call() for _ in range(3)], bench.on)
    taken = not repeated or ours.frozen.graphs.recordings > 0
    if override == "engine.compile=true":
        taken = taken and vars(ours.frozen.network)["forward"].taken
    equal = float(((call() - expected).abs() <= 1e-4).float().mean())
    seconds = statistics.median(machine.seconds(call, bench.on) for _ in range(TURNS))
    refused = None if taken else _reason(bench, warned)
    return Speed(len(batch) / seconds, ready, equal, taken, refused)


def _reason(bench: Bench, known: int) -> str:
    """Return what the library has warned of since there were so many warnings."""
    return "; ".join(bench.part.warnings[known:]) or "see the warnings"


def graph_part(bench: Bench) -> None:
    """Measure PGD eager and by a CUDA graph, at a training batch and at one that keeps the device busy."""
    if bench.ours("engine.compile=false").frozen.graphs is None:
        bench.part.note = "needs CUDA"
        return
    size = bench.case.config().training.batch_size
    for count in (size,) if bench.tiny else (size, LARGE):
        for way in ("eager", "graph"):
            _pgd(bench, way, count)


def compile_part(bench: Bench) -> None:
    """Measure PGD by torch.compile, at a training batch: each shape costs a compilation."""
    if not has_compiler(bench.on.type):
        bench.part.note = f"needs {'Triton and a C compiler' if bench.on.type == 'cuda' else 'a C++ compiler'}"
        return
    size = bench.case.config().training.batch_size
    with compiler_cache.kept("compile", out=bench.out, work=bench.work):
        for way in ("eager", "compiled", "compiled, graph") if bench.on.type == "cuda" else ("eager", "compiled"):
            _pgd(bench, way, size)


def _pgd(bench: Bench, way: str, count: int) -> None:
    batch = batch_of(bench.case.shape, count, bench.on)
    bench.figure(f"PGD, {count} images, {way}", lambda: asdict(pgd_speed(bench, way, batch)))


def fastest(bench: Bench) -> str:
    """Return the fastest of the ways that were taken for a training batch, by the figures of earlier parts."""
    size = bench.case.config().training.batch_size
    figures = {name: own for part in bench.parts.values() for name, own in part.figures.items()}
    speeds = {way: figures.get(f"PGD, {size} images, {way}") for way in WAYS}
    taken = {way: own["images_a_second"] for way, own in speeds.items() if own is not None and own["taken"]}
    return max(taken, key=lambda way: taken[way]) if taken else "eager"
