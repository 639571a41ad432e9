"""Every column of some presets side by side, several seeds: dummy classes as published beside attacks that know them.

    python benchmarks/columns_table.py                                 (DUCAT beside PGD-AT on digits)
    python benchmarks/columns_table.py digits-dbat --set evaluation.attack=quick

Trains each preset over the seeds through the store, evaluates the deployed learner on the test split, and prints
Markdown: mean and standard deviation over seeds of natural accuracy, of each column, and of the worst, image by image.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence

from benchmarks import machine
from benchmarks.digits_table import DATA, SEEDS, train_and_evaluate
from benchmarks.trainings import prepared
from generalist.config import load
from generalist.errors import BadInput
from generalist.evaluation import protocol

PRESETS = ("digits-pgd-at", "digits-ducat")


def main(words: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("presets", nargs="*", default=PRESETS)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="seeds 0, 1, …")
    parser.add_argument("--set", action="append", default=[], help="an override for all, such as training.epochs=20")
    arguments = parser.parse_args(words)
    if arguments.seeds < 1:
        parser.error(f"--seeds {arguments.seeds}: one at least")
    try:
        print(f"\n{_table(arguments.presets, arguments.seeds, arguments.set)}\n\n{machine.machine()}")
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _table(presets: Sequence[str], seeds: int, overrides: list[str]) -> str:
    rows: dict[str, dict[str, list[float]]] = {}
    configs = [load(preset=name, overrides=[f"seed={seed}", *overrides]) for name in presets for seed in range(seeds)]
    for name, config in zip([name for name in presets for _ in range(seeds)], configs, strict=True):
        asked, learner = protocol(config, prepared(config, DATA)), train_and_evaluate(config)
        named = {asked.title(column): accuracy for column, accuracy in learner.headline.columns.items()}
        for title, accuracy in {"natural": learner.natural, **named, "worst": learner.headline.worst}.items():
            rows.setdefault(name, {}).setdefault(title, []).append(100 * accuracy.value)
        print(
            f"# {name}, seed {config.seed}: {', '.join(f'{title} {own[-1]:.1f}' for title, own in rows[name].items())}"
        )
        sys.stdout.flush()
    titles = dict.fromkeys(title for row in rows.values() for title in row)
    cells = [[name, *(spread(row[title]) if title in row else "" for title in titles)] for name, row in rows.items()]
    return machine.table(["preset", *titles], cells)


def spread(values: list[float]) -> str:
    """Return the mean, and the standard deviation where there are several."""
    apart = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{apart}"


if __name__ == "__main__":
    sys.exit(main())
