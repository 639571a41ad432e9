"""The README's table: Generalist beside its experts alone and TRADES, same epochs, several seeds, on digits.

    python benchmarks/digits_table.py            (or: make table)

Trains every configuration with the default parameters over the seeds, evaluates the deployed learner on
the test split, and prints Markdown: mean and standard deviation over seeds. Trainings go through the store, so
a second call prints the table from what is there but for the evaluation.
"""

import argparse
import datetime
import os
import platform
import statistics
import time

import torch

from benchmarks.trainings import deployed, finished, prepared
from generalist import engine
from generalist.config import Config, load
from generalist.data import Dataset
from generalist.evaluation import evaluate, subset
from generalist.records import LearnerEvaluation
from generalist.training import Outcome

ROWS = {
    "natural training": "digits-natural",
    "PGD-AT": "digits-pgd-at",
    "TRADES, beta 6": "digits-trades",
    "Generalist, global learner": "digits",
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, …")
    parser.add_argument("--set", action="append", default=[], help="an override for all, such as training.epochs=20")
    arguments = parser.parse_args()
    began = time.perf_counter()
    rows: dict[str, list[LearnerEvaluation]] = {}
    for title, preset in ROWS.items():
        for seed in range(arguments.seeds):
            config = load(preset=preset, overrides=[f"seed={seed}", *arguments.set])
            dataset = prepared(config, "digits-table")
            outcome = finished(config, dataset)
            rows.setdefault(title, []).append(_evaluated(config, dataset, outcome))
            print(f"# {title}, seed {seed}: {time.perf_counter() - began:.0f} s", flush=True)
    _print(rows, load(preset="digits", overrides=arguments.set), arguments.seeds)
    cores = os.cpu_count()
    print(
        f"\n{datetime.date.today()}, {platform.machine()}, {cores} cores, torch {torch.__version__}: "  # noqa: DTZ011
        f"{time.perf_counter() - began:.0f} s in all; `make table`"
    )


def _evaluated(config: Config, dataset: Dataset, outcome: Outcome) -> LearnerEvaluation:
    name = config.deploy.removeprefix("expert:")
    model = deployed(config, dataset, outcome)
    with engine.threads(config.training.threads):
        return evaluate(
            model,
            subset(dataset.test, config.evaluation),
            options=config.evaluation,
            class_names=dataset.class_names,
            name=name,
            epoch=outcome.chosen.epoch,
            digest=outcome.chosen.digest,
        ).evaluation


def _print(rows: dict[str, list[LearnerEvaluation]], config: Config, seeds: int) -> None:
    options = config.evaluation
    threat = rows["PGD-AT"][0].threats[0].threat
    n = rows["PGD-AT"][0].natural.n
    print(
        f"\n{threat}, test split, n = {n}, {config.training.epochs} epochs,"
        f" mean ± standard deviation over {seeds} seeds\n"
    )
    print(f"| training | natural | PGD-{options.pgd.steps} | {options.attack} |")
    print("|---|---|---|---|")
    for title, own in rows.items():
        columns = [
            [100 * learner.natural.value for learner in own],
            [100 * learner.threats[0].pgd.value for learner in own],
            [100 * learner.threats[0].cascade.value for learner in own],
        ]
        cells = [f"{statistics.mean(c):.1f} ± {statistics.stdev(c) if seeds > 1 else 0:.1f}" for c in columns]
        print(f"| {title} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
