"""The README's table: Generalist beside its experts alone and TRADES, same epochs, several seeds, on digits.

    python benchmarks/digits_table.py            (or: make table)
    python benchmarks/digits_table.py --render   (what is recorded, in all places again)

Trains every configuration with the default parameters over the seeds, evaluates the deployed learner on
the test split, and prints Markdown: mean and standard deviation over seeds. Trainings go through the store, so
a second call prints the table from what is there but for the evaluation. Measured with the settings of its own, the
table is recorded in benchmarks/measured and shown in the README, docs/methods.md and the presets' headers.
"""

import argparse
import datetime
import sys
import time
from collections.abc import Iterator, Sequence

from benchmarks import digits_record, machine
from benchmarks.digits_record import Row, Table, Trained
from benchmarks.trainings import evaluated, finished, prepared
from generalist import engine
from generalist.atomic_files import check_file, write_atomically
from generalist.code_digest import plugins_of, training_code
from generalist.config import Config, load
from generalist.errors import BadInput
from generalist.evaluation import learner_names, protocol
from generalist.records import Point

ROWS = {
    "natural training": "digits-natural",
    "PGD-AT": "digits-pgd-at",
    "TRADES, beta 6": "digits-trades",
    "Generalist, global learner": "digits",
    "clean-feature anchoring": "digits-anchored",
}
DATA = "digits-table"
SEEDS = 3


def main(words: Sequence[str] | None = None) -> int:
    """Print the table, and record it where it is the one that is shown."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    machine.add_trainings(parser, seeds=SEEDS)
    parser.add_argument("--render", action="store_true", help="measure nothing; show what is recorded")
    arguments = parser.parse_args(words)
    recorded = arguments.seeds == SEEDS and not arguments.set
    try:
        if not arguments.render:
            if recorded:
                check_file(digits_record.FILE)
            table = _measured(arguments.seeds, arguments.set)
            print(f"\n{table.markdown()}")
            if not recorded:
                print(f"\nNot recorded: that takes {SEEDS} seeds and no --set.")
                return 0
            content = table.model_dump_json(indent=1) + "\n"
            write_atomically(digits_record.FILE, content.encode())
        changed = digits_record.write(digits_record.read())
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    print(f"\n{', '.join(str(path) for path in changed) or 'nothing'} changed")
    return 0


def _measured(seeds: int, overrides: list[str]) -> Table:
    began = time.perf_counter()
    configs = {
        title: [load(preset=preset, overrides=[f"seed={seed}", *overrides]) for seed in range(seeds)]
        for title, preset in ROWS.items()
    }
    rows: list[Row] = []
    plugins: set[str] = set()
    for title, own in configs.items():
        trained = []
        for config in own:
            trained.append(train_and_evaluate(config))
            print(f"# {title}, seed {config.seed}: {time.perf_counter() - began:.0f} s", flush=True)
        plugins |= plugins_of(config.model).union(*(plugins_of(expert) for expert in config.experts.values()))
        rows.append(Row(title=title, preset=ROWS[title], trained=tuple(trained)))
    options = config.evaluation
    return Table(
        date=datetime.date.today(),  # noqa: DTZ011
        machine=machine.machine(engine.device(config.training.device)),
        versions=machine.versions(),
        epochs=config.training.epochs,
        attacks=(f"PGD-{options.pgd.steps}", f"AutoAttack `{options.attack}`"),
        protocol=protocol(config, prepared(config, DATA)),
        training_code=training_code(plugins),
        rows=tuple(rows),
    )


def train_and_evaluate(config: Config) -> Trained:
    """Return what a configuration's deployed learner comes to on the test split, a conditional one at its headline."""
    return next(each_evaluated(config))[1]


def each_evaluated(config: Config) -> Iterator[tuple[Point, Trained]]:
    """Yield the same at each lambda and width of the evaluation, with these, the headline's first."""
    dataset, options = prepared(config, DATA), config.evaluation
    outcome = finished(config, dataset)
    for name in learner_names([config.deployed], options):
        began = time.perf_counter()
        learner = evaluated(config, dataset, outcome, options, name)
        yield (
            learner.at,
            Trained(
                seed=config.seed,
                natural=learner.natural,
                headline=learner.threats[0],
                digest=learner.digest,
                training_seconds=sum(epoch.seconds for epoch in outcome.history.epochs),
                evaluation_seconds=time.perf_counter() - began,
            ),
        )


if __name__ == "__main__":
    sys.exit(main())
