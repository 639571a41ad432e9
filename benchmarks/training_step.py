"""One Generalist step: the naive loop, ours on plain paths, and ours, side by side, whole and in parts.

    python benchmarks/training_step.py

A step is one of each expert, after the warm-up, with the shares of the global learner. On a CPU: process CPU time on
one thread; on CUDA: the time that passes, synchronised. The sides take turns; medians, ratios first.
With --quick the attack is cut to one iteration and counted as many times as it has iterations, the robust expert's
training pass is taken to cost what the natural one's does, and the step is the sum of its parts.
"""

import statistics
from collections.abc import Sequence

import torch

from benchmarks import machine
from benchmarks.sides import CASES, PARTS, Ours, Side, batch_of, difference, naive_side
from generalist import engine

Times = dict[str, list[dict[str, float]]]
"""By side, for each turn: milliseconds of the parts and of the step."""
CUDA_BATCH = 128


def measured(names: list[str], on: torch.device, *, batch: int | None, quick: bool) -> tuple[Times, dict[str, float]]:
    """Return the times of the naive loop, the plain side and each case, all of one network, and their differences."""
    case = CASES[names[0]]
    small, cuda = case.preset == "digits", on.type == "cuda"
    images = batch_of(case.shape, batch or (CUDA_BATCH if cuda else 16 if quick and not small else case.batch), on)
    cut = 1 if quick and not small and not cuda else None
    plain = Ours(CASES[names[0]], on, "engine.eager=true", *_FLOAT32)
    ours = {name: Ours(CASES[name], on) for name in names}
    apart = {}
    for name, own in ours.items():
        apart[name], same = difference(own, plain, batch_of(case.shape, 4, on) if cut else images)
        print(
            f"# {name}: gradients of the attack differ by {apart[name]:.1e}, {100 * same:.2f} % of the signs are equal"
        )
    sides = {"naive": naive_side(plain, images, cut), "plain": plain.side(images, cut)}
    sides |= {name: own.side(images, cut) for name, own in ours.items()}
    turns = 10 if small and quick else 100 if small else 10 if cuda else 3 if quick else 5
    return timed(sides, turns, on, warm_up=0 if cut else 3 if cuda else 1, whole=cut is None), apart


def timed(sides: dict[str, Side], turns: int, on: torch.device, *, warm_up: int, whole: bool) -> Times:
    """Time each side in turn; where time is short, shared work is timed once a turn, and the plain side once."""
    found: Times = {name: [] for name in sides}
    for turn in range(warm_up + turns):
        known: dict[str, float] = {}
        for name, side in sides.items():
            if name == "plain" and turn and not whole:
                continue
            spent = side.timed(on, whole=whole, known={} if whole else known)
            if turn >= warm_up:
                found[name].append(spent)
    return found


def ratio(times: Times, one: str, other: str) -> float:
    """Return how many times longer a step of one side takes than one of the other: the median over the turns."""
    pairs = zip(times[one], times[other], strict=False)
    return statistics.median(own["step"] / another["step"] for own, another in pairs)


def medians(times: Times) -> dict[str, dict[str, float]]:
    """Return the milliseconds by side and part."""
    return {
        side: {name: statistics.median(turn[name] for turn in own) for name in own[0]} for side, own in times.items()
    }


def main(words: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = machine.arguments(
        __doc__, quick="under a minute: batches of 16 images for ResNet-18, three turns, cut attacks"
    )
    parser.add_argument("--case", choices=list(CASES), nargs="+", default=list(CASES), help="only these")
    parser.add_argument("--batch", type=int, metavar="N", help="images in a step, instead of the usual number")
    machine.add_device(parser)
    arguments = parser.parse_args(words)
    on = machine.device(arguments.device)
    networks: dict[str, list[str]] = {}
    for name in arguments.case:
        networks.setdefault(CASES[name].preset, []).append(name)
    ratios, against_plain, parts, apart = {}, {}, {}, {}
    with engine.threads(1):
        for preset, names in networks.items():
            times, differences = measured(names, on, batch=arguments.batch, quick=arguments.quick)
            ratios |= {name: ratio(times, "naive", name) for name in names}
            against_plain |= {name: ratio(times, "plain", name) for name in names}
            parts[preset], apart = medians(times), apart | differences
    print(
        "\n"
        + machine.table(
            ["case", "naive / ours", "plain / ours"],
            [[name, f"{ratios[name]:.2f}", f"{against_plain[name]:.2f}"] for name in arguments.case],
        )
    )
    for preset, sides in parts.items():
        rows = [
            [side, *(f"{own[part]:.2f}" if part in own else "" for part in (*PARTS, "step"))]
            for side, own in sides.items()
        ]
        print(f"\n{preset}, milliseconds; {_NOTE}:\n")
        print(machine.table(["side", *PARTS, "step"], rows))
    more = {"plain": against_plain, "milliseconds": parts, "difference": apart}
    machine.tell(ratios, on, arguments.json, **more)


_NOTE = "averages: within both passes, but for the naive loop"
_FLOAT32 = ("engine.attack_precision=float32", "engine.precision=float32")

if __name__ == "__main__":
    main()
