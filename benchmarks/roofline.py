"""How near a training step comes to what the device can do: counted work over measured peaks, against measured time.

    python benchmarks/roofline.py

Peaks are this device's own: a large matrix product in float32, in TF32 (on CUDA) and in bfloat16, and a large copy. A
ratio is the arithmetic achieved, of the peak in the precision of that part; beside it, the least time by arithmetic and
by memory.
One thread on a CPU, as in `training_step.py`, whose cases and parts these are.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks import machine
from benchmarks.counting import Work, iteration, training_pass
from benchmarks.sides import CASES, Case, Ours, batch_of
from benchmarks.training_step import CUDA_BATCH
from generalist import engine

_BYTES = {"float32": 4, "tf32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class Peaks:
    """What the device can do at most, measured.

    Attributes:
        products: floating-point operations a second of a matrix product, by precision: `float32` (without TF32),
            `tf32` (where the device is CUDA) and `bfloat16`.
        copy: bytes a second, those read and those written.
    """

    products: dict[str, float]
    copy: float

    @classmethod
    def of(cls, on: torch.device, *, quick: bool) -> "Peaks":
        """Measure them, on random numbers."""
        cuda = on.type == "cuda"
        side, numbers = (8192, 2**30) if cuda else (512, 2**24) if quick else (2048, 2**26)
        products = {}
        for precision in _BYTES:
            if precision == "tf32" and not cuda:
                continue
            dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
            one, other = (torch.randn(side, side, device=on).to(dtype) for _ in range(2))
            with engine.arithmetic(on, tf32=precision == "tf32"):
                products[precision] = 2 * side**3 / _median_seconds(one, other, on)
        source = torch.randn(numbers, device=on)
        target = torch.empty_like(source)
        target.copy_(source)
        copied = min(machine.seconds(lambda: target.copy_(source), on) for _ in range(5))
        return cls(products, 2 * 4 * numbers / copied)


def _median_seconds(one: Tensor, other: Tensor, on: torch.device) -> float:
    """Return the seconds of a product: the median of several after a warm-up."""
    found = torch.empty_like(one)
    torch.mm(one, other, out=found)
    return statistics.median(machine.seconds(lambda: torch.mm(one, other, out=found), on) for _ in range(5))


@dataclass(frozen=True)
class Row:
    """A part of a step: counted work, measured seconds, and what the peaks allow."""

    name: str
    work: Work
    seconds: float
    peak: float
    least: float

    @property
    def ratio(self) -> float:
        """The arithmetic achieved, of the peak."""
        return self.work.flops / self.seconds / self.peak


def rows(name: str, on: torch.device, peaks: Peaks, *, batch: int | None, quick: bool) -> list[Row]:
    """Return the attack, the robust step, the natural step and the whole step of a case."""
    case, small, cuda = CASES[name], CASES[name].preset == "digits", on.type == "cuda"
    size = batch or (CUDA_BATCH if cuda else 16 if quick and not small else case.batch)
    ours = Ours(case, on)
    cut = 1 if quick and not small and not cuda else None
    side = ours.side(batch_of(case.shape, size, on), cut)
    turns = 2 if cut else 10 if small or cuda else 3
    found = [side.timed(on, whole=False) for _ in range(turns + (0 if cut else 3))][-turns:]
    spent = {part: statistics.median(turn[part] for turn in found) / 1000 for part in found[0]}
    return step_rows(case, ours, spent, size, peaks)


def step_rows(case: Case, ours: Ours, spent: dict[str, float], size: int, peaks: Peaks) -> list[Row]:
    """Return the attack, the robust step, the natural step and the whole step, from measured seconds.

    Args:
        case: whose operations are counted.
        ours: whose precisions decide the peaks.
        spent: seconds of the parts `attack`, `training pass` and `natural`.
        size: images in a step.
        peaks: of the device.
    """
    options = ours.config.engine
    float32 = "tf32" if options.tf32 and "tf32" in peaks.products else "float32"
    whole = "bfloat16" if options.precision == "bfloat16" else float32
    attack = "bfloat16" if "bfloat16" in (options.precision, options.attack_precision) else float32
    one, steps = iteration(case, size, bytes_each=_BYTES[attack]), int(ours.objective.attack.steps)
    attacked = Work(steps * one.flops, steps * one.fused, steps * one.unfused)
    trained = training_pass(case, size, bytes_each=_BYTES[whole])
    fast, exact = peaks.products[attack], peaks.products[whole]

    def least(passes: int, attacks: int) -> float:
        return attacks * attacked.seconds(fast, peaks.copy) + passes * trained.seconds(exact, peaks.copy)

    def row(name: str, seconds: float, *, passes: int, attacks: int) -> Row:
        parts = [(passes, trained), (attacks, attacked)]
        flops, fused, unfused = (
            sum(count * getattr(work, kind) for count, work in parts) for kind in ("flops", "fused", "unfused")
        )
        # the peak of arithmetic in two precisions is that of the time which both take
        peak = flops / (passes * trained.flops / exact + attacks * attacked.flops / fast)
        return Row(name, Work(flops, fused, unfused), seconds, peak, least(passes, attacks))

    robust = spent["attack"] + spent["training pass"]
    return [
        row("attack", spent["attack"], passes=0, attacks=1),
        row("robust step", robust, passes=1, attacks=1),
        row("natural step", spent["natural"], passes=1, attacks=0),
        row("step", robust + spent["natural"], passes=2, attacks=1),
    ]


def main(words: Sequence[str] | None = None) -> None:
    """Print peaks and rows."""
    parser = machine.arguments(__doc__, quick="under a minute: batches of 16 for ResNet-18, cut attacks, small peaks")
    parser.add_argument("--case", choices=list(CASES), nargs="+", default=list(CASES), help="only these")
    parser.add_argument("--batch", type=int, metavar="N", help="images in a step, instead of the usual number")
    machine.add_device(parser)
    arguments = parser.parse_args(words)
    on = machine.device(arguments.device)
    ratios, lines = {}, []
    with engine.threads(1):
        peaks = Peaks.of(on, quick=arguments.quick)
        products = ", ".join(f"{own / 1e9:.0f} GFLOP/s {name}" for name, own in peaks.products.items())
        print(f"# peaks: {products}, {peaks.copy / 1e9:.1f} GB/s copied")
        for name in arguments.case:
            found = rows(name, on, peaks, batch=arguments.batch, quick=arguments.quick)
            ratios[name] = {row.name: row.ratio for row in found}
            lines += [_line(name, row) for row in found]
    print()
    print(machine.table(["case", "part", "of the peak", "ms", "least ms", "GFLOP", "MB fused", "MB unfused"], lines))
    machine.tell(ratios, on, arguments.json, peaks={**peaks.products, "copy": peaks.copy})


def _line(case: str, row: Row) -> list[str]:
    work = row.work
    numbers = [1000 * row.seconds, 1000 * row.least, work.flops / 1e9, work.fused / 1e6, work.unfused / 1e6]
    return [case, row.name, f"{100 * row.ratio:.1f} %", *(f"{own:.4g}" for own in numbers)]


if __name__ == "__main__":
    main()
