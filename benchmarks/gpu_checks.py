"""Attacks on the device: that their gradients are the CPU's, and how fast they are, by each of the fast ways.

    python -m benchmarks.gpu_checks

On a network with initial weights and an eps so small that nothing is broken, so that every image takes every step.
The ways of PGD are compared at a usual eps.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import nn

from benchmarks import machine
from benchmarks.sides import CASES, Case, Ours, batch_of, difference
from generalist.attacks import autoattack, pgd
from generalist.attacks.handover import Precision
from generalist.attacks.losses import cross_entropy
from generalist.engine import Program
from generalist.engine.compiling import CompiledSlope
from generalist.tensors import Batch
from generalist.threats import Threat

EPS = 1e-6
STEPS = 20
QUERIES = 200
WAYS = {
    "eager": ("engine.compile=false", False),
    "graph": ("engine.compile=false", True),
    "compiled": ("engine.compile=true", False),
    "compiled, graph": ("engine.compile=true", True),
}
"""Of PGD's loop on a GPU: an override, and whether it is repeated by a CUDA graph; on a CPU there is the first."""
GRADIENTS, FORWARDS = 1900, 7800
"""Passes of an image that survives the standard cascade with ten classes, as counted."""


def agreement(case: Case, on: torch.device, images: int) -> dict[str, float]:
    """How far this device's gradients are from the CPU's plain ones in float32, relative: of images, of weights."""
    cpu = torch.device("cpu")
    plain, batch = Ours(case, cpu, "engine.plain=true"), batch_of(case.shape, images, cpu)
    here = batch_of(case.shape, images, on)
    found = {}
    for precision in ("float32", "bfloat16"):
        own = Ours(case, on, f"engine.attack_precision={precision}")
        found[f"images, {precision}"], _ = difference(own, plain, batch, here)
        if precision == "float32":
            true, other = (_weights(side, given) for side, given in ((plain, batch), (own, here)))
            found["weights, float32"] = float((other - true).norm() / true.norm())
    return found


def _weights(side: Ours, batch: Batch) -> torch.Tensor:
    """The gradients of all weights of a training pass, as one vector on the CPU."""
    model: nn.Module = side.natural.learner.model
    model.zero_grad()
    cross_entropy(model(batch.images), batch.labels).mean().backward()
    return torch.cat([own.grad.flatten().cpu() for own in model.parameters() if own.grad is not None])


def throughput(case: Case, on: torch.device, *, quick: bool) -> dict[str, float]:
    """Images a second of PGD, passes a second of APGD and Square by precision, and a forecast of the cascade."""
    images, steps, queries = (64, 3, 10) if quick else (1024, STEPS, QUERIES)
    ours = Ours(case, on, *(["model.width=4"] if quick else []))
    batch, threat = batch_of(case.shape, images, on), Threat("linf", EPS)
    model, network = ours.robust.learner.model.eval(), ours.attackable
    with torch.no_grad():
        labels = model(batch.images).argmax(1)

    def by_pgd() -> object:
        return pgd(network, batch.images, labels, threat, steps=steps, random_start=False)

    def passes_a_second(attack: str, precision: Precision) -> float:
        passes = []

        def call() -> None:
            found = autoattack(
                model, batch.images, labels, threat, attacks=[attack], square_queries=queries, precision=precision
            ).passes
            passes.append(int((found.forward if attack == "square" else found.backward).sum()))

        return 1 / machine.seconds(call, on) * passes[0]

    for _ in range(3):  # to warm up; on a GPU it compiles, then records
        by_pgd()
    told = {f"PGD-{steps}, images/s": images / machine.seconds(by_pgd, on)}
    precisions: tuple[Precision, ...] = ("float32",) if quick else ("float32", "bfloat16")
    for precision in precisions:
        gradients, queried = (passes_a_second(attack, precision) for attack in ("apgd-ce", "square"))
        survivor = GRADIENTS / gradients + (FORWARDS - GRADIENTS) / queried
        told |= {
            f"APGD {precision}, passes/s": gradients,
            f"Square {precision}, passes/s": queried,
            f"AutoAttack {precision}, forecast seconds for 1,000 survivors": 1000 * survivor,
        }
    return told


@dataclass(frozen=True)
class Loop:
    """One way of PGD's loop.

    Attributes:
        images_a_second: once it is ready.
        ready_seconds: its first three calls, in which it compiles, records and compares.
        equal: the share of pixels that come out as eagerly, to 1e-4.
        taken: whether it was computed so; what fails falls back to the eager way, with a warning.
    """

    images_a_second: float
    ready_seconds: float
    equal: float
    taken: bool


def loops(case: Case, on: torch.device, *, quick: bool) -> dict[str, Loop]:
    """PGD's loop by each way that there is on the device."""
    count, steps = (64, 3) if quick else (1024, 10)
    batch, threat = batch_of(case.shape, count, on), Threat("linf", 8 / 255)
    found: dict[str, Loop] = {}
    eager: torch.Tensor | None = None
    for name, (override, repeated) in WAYS.items():
        if on.type == "cpu" and name != "eager":
            continue
        program = Ours(case, on, override, *(["model.width=4"] if quick else [])).attackable
        if not repeated:
            program.replays = None

        def attacked(program: Program = program) -> torch.Tensor:
            return pgd(program, batch.images, batch.labels, threat, steps=steps, random_start=False)

        ready = machine.seconds(lambda call=attacked: [call() for _ in range(3)], on)  # type: ignore[misc]
        result = attacked()
        eager = result if eager is None else eager
        equal = float(((result - eager).abs() <= 1e-4).float().mean())
        taken = not repeated or program.replays.recordings > 0
        if override.endswith("true"):
            taken = taken and isinstance(program.way, CompiledSlope) and program.way.trial.taken
        found[name] = Loop(count / machine.seconds(attacked, on), ready, equal, taken)
    return found


def _told(ways: dict[str, Loop]) -> list[list[str]]:
    """A line for each way."""
    lines = []
    for name, own in ways.items():
        more = (
            f"{own.images_a_second:,.0f}; {own.ready_seconds:.1f} s to get ready; {own.equal:.2%} of pixels as eagerly"
        )
        lines.append([f"PGD's loop, {name}, images/s", more if own.taken else f"refused, see the warning; {more}"])
    return lines


def main(words: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = machine.arguments(__doc__, quick="seconds on a CPU: the network for digits, few images and steps")
    machine.add_device(parser)
    arguments = parser.parse_args(words)
    on, quick = machine.device(arguments.device), arguments.quick
    case = CASES["digits" if quick else "resnet18_float32"]
    apart, speed = agreement(case, on, 8 if quick else 64), throughput(case, on, quick=quick)
    lines = [[f"gradients of {name}: difference from the CPU's", f"{own:.1e}"] for name, own in apart.items()]
    lines += [[name, f"{own:,.0f}"] for name, own in speed.items()]
    ways = loops(case, on, quick=quick)
    lines += _told(ways)
    print("\n" + machine.table(["what", ""], lines))
    ratios = {f"AutoAttack by {name}": own for name, own in gains(speed).items()}
    ratios |= {
        f"PGD by {name}": own.images_a_second / ways["eager"].images_a_second
        for name, own in ways.items()
        if name != "eager"
    }
    told = {name: asdict(own) for name, own in ways.items()}
    machine.tell(ratios, on, arguments.json, difference_from_cpu=apart, throughput=speed, loops=told)


def gains(speed: dict[str, float]) -> dict[str, float]:
    """How many times faster the cascade is forecast to be in bfloat16, where that was measured."""
    forecast = {name: own for name, own in speed.items() if name.startswith("AutoAttack")}
    exact, *others = forecast.values()
    return {"bfloat16": exact / others[0]} if others else {}


if __name__ == "__main__":
    main()
