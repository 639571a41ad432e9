"""What bfloat16 in training does to accuracy: the same trainings in float32 and in bfloat16, seed by seed.

    python benchmarks/precision_study.py --preset digits
    python benchmarks/precision_study.py --preset cifar10-resnet18-quick --set data.path=FOLDER

Each seed is trained in float32, with attacks in bfloat16, and with all of the step in bfloat16; the deployed learner is
evaluated in float32 on the test split. Differences are paired by seed; their interval is Student's, of 95 %.
"""

import statistics
import time

import torch

from benchmarks.machine import add_trainings, arguments, table, tell
from benchmarks.trainings import finished, prepared, tested
from generalist.config import load
from generalist.significance import mean_interval

WAYS = {
    "float32": (),
    "attack": ("engine.attack_precision=bfloat16",),
    "step": ("engine.attack_precision=bfloat16", "engine.precision=bfloat16"),
}


def main() -> None:
    """Print accuracies of each way, and the differences from float32."""
    parser = arguments(__doc__)
    parser.add_argument("--preset", default="digits", help="what is trained")
    add_trainings(parser, seeds=5)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS)[1:], default=list(WAYS)[1:], help="beside float32")
    given = parser.parse_args()
    began, found = time.perf_counter(), {way: list[tuple[float, float]]() for way in ("float32", *given.ways)}
    for seed in range(given.seeds):
        for way, own in found.items():
            config = load(preset=given.preset, overrides=[f"seed={seed}", *WAYS[way], *given.set])
            dataset = prepared(config, f"precision-{given.preset}")
            measured = tested(config, dataset, finished(config, dataset), config.evaluation.pgd)
            own.append((100 * measured.natural.value, 100 * measured.robust.value))
            print(
                f"# seed {seed}, {way}: {own[-1][0]:.2f} / {own[-1][1]:.2f}, {time.perf_counter() - began:.0f} s",
                flush=True,
            )
    attack, threat = config.evaluation.pgd, config.evaluation.threats[0]
    print(
        f"\n{given.preset}, test split, n = {measured.natural.n}, {threat.norm} {threat.eps}, PGD-{attack.steps},"
        f" {given.seeds} seeds: means, and differences from float32 with 95 % intervals, in points\n"
    )
    ratios, rows = {}, []
    for way, own in found.items():
        cells, differences = [way], {}
        for index, what in enumerate(("natural", "robust")):
            values = [pair[index] for pair in own]
            mean, low, high = mean_interval(
                [pair[index] - base[index] for pair, base in zip(own, found["float32"], strict=True)]
            )
            cells += [
                f"{statistics.mean(values):.2f}",
                "" if way == "float32" else f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]",
            ]
            differences[what] = [mean, low, high]
        rows.append(cells)
        ratios[way] = differences
    print(table(["bfloat16 in", "natural", "difference", "robust", "difference"], rows))
    tell(ratios, torch.device("cpu"), given.json)


if __name__ == "__main__":
    main()
