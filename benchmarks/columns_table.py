"""Every column of some presets side by side, several seeds: dummy classes as published beside attacks that know them.

    python benchmarks/columns_table.py                                 (DUCAT beside PGD-AT on digits)
    python benchmarks/columns_table.py digits-dbat --set evaluation.attack=quick
    python benchmarks/columns_table.py digits-natural digits-oat digits-pgd-at   (a row for each lambda, and width)

Trains each preset over the seeds through the store, evaluates the deployed learner on the test split, and prints
Markdown: mean and standard deviation over seeds of natural accuracy, of each column, and of the worst, image by image.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence

from benchmarks import machine
from benchmarks.digits_record import Trained
from benchmarks.digits_table import DATA, SEEDS, each_evaluated
from benchmarks.trainings import prepared
from generalist.config import Config, load
from generalist.errors import BadInput
from generalist.evaluation import protocol
from generalist.records import Point

PRESETS = ("digits-pgd-at", "digits-ducat")


def main(words: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("presets", nargs="*", default=PRESETS)
    machine.add_trainings(parser, seeds=SEEDS)
    arguments = parser.parse_args(words)
    try:
        print(f"\n{_table(arguments.presets, arguments.seeds, arguments.set)}\n\n{machine.machine()}")
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _table(presets: Sequence[str], seeds: int, overrides: list[str]) -> str:
    rows: dict[str, dict[str, list[float]]] = {}
    configs = {
        name: [load(preset=name, overrides=[f"seed={seed}", *overrides]) for seed in range(seeds)] for name in presets
    }
    for name, own in configs.items():
        for config in own:
            asked = protocol(config, prepared(config, DATA))
            for point, learner in sorted(each_evaluated(config), key=_by_width_and_lambda):
                row = rows.setdefault(_row(name, config, point), {})
                named = {asked.title(column): accuracy for column, accuracy in learner.headline.columns.items()}
                for title, accuracy in {"natural": learner.natural, **named, "worst": learner.headline.worst}.items():
                    row.setdefault(title, []).append(100 * accuracy.value)
                told = ", ".join(f"{title} {values[-1]:.1f}" for title, values in row.items())
                print(f"# {_row(name, config, point)}, seed {config.seed}: {told}", flush=True)
    titles = dict.fromkeys(title for row in rows.values() for title in row)
    cells = [[name, *(spread(row[title]) if title in row else "" for title in titles)] for name, row in rows.items()]
    return machine.table(["preset", *titles], cells)


def _by_width_and_lambda(evaluated: tuple[Point, Trained]) -> tuple[float, float]:
    condition, width = evaluated[0]
    return -(width or 0.0), condition or 0.0


def _row(preset: str, config: Config, point: Point) -> str:
    if point == Point():
        return preset
    unseen = config.model.condition is not None and point.condition not in config.model.condition.choices
    return f"{preset}, {point}{' (not trained at)' if unseen else ''}"


def spread(values: list[float]) -> str:
    """Return the mean, and the standard deviation where there are several."""
    apart = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{apart}"


if __name__ == "__main__":
    sys.exit(main())
