"""Rotations and translations of digits: the worst of a grid and of attacks, for trainings that know them or not.

    python benchmarks/attribute_table.py                                (three seeds)
    python benchmarks/attribute_table.py --seeds 1 --set training.epochs=10

Trains each preset over the seeds through the store, chooses the epoch as the preset does, attacks the deployed learner
on the test split within the attributes of `digits-attributes` and within Linf 0.15, and prints Markdown: mean and
standard deviation over seeds of natural accuracy and of each column, and of the worst, image by image.
"""

import sys
from collections.abc import Sequence

from benchmarks import machine
from benchmarks.columns_table import spread
from benchmarks.digits_table import DATA, SEEDS
from benchmarks.trainings import evaluated, finished, prepared
from generalist import engine
from generalist.config import Config, load
from generalist.errors import BadInput
from generalist.evaluation import protocol

PRESETS = {
    "natural training": "digits-natural",
    "PGD-AT, Linf 0.15": "digits-pgd-at",
    "attribute-space training": "digits-attributes",
}
THREATS = "evaluation.threats=[{norm: attributes, rotation: 30, translation: 0.125}, {norm: linf, eps: 0.15}]"


def main(words: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = machine.arguments(__doc__)
    machine.add_trainings(parser, seeds=SEEDS)
    arguments = parser.parse_args(words)
    try:
        rows = {
            title: [_measured(preset, [f"seed={seed}", *arguments.set]) for seed in range(arguments.seeds)]
            for title, preset in PRESETS.items()
        }
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    heads = [*rows["natural training"][0]]
    cells = [[title, *(spread([one[head] for one in own]) for head in heads)] for title, own in rows.items()]
    print(f"\n{machine.table(['training', *heads], cells)}")
    machine.tell(rows, engine.device("cpu"), arguments.json)
    return 0


def _measured(preset: str, overrides: list[str]) -> dict[str, float]:
    """Return the accuracies of one training in per cent, by what they are against."""
    config = load(preset=preset, overrides=overrides)
    asked: Config = load(preset=preset, overrides=["evaluation.attack=quick", *overrides, THREATS])
    dataset = prepared(config, DATA)
    learner = evaluated(config, dataset, finished(config, dataset), asked.evaluation)
    title, found = protocol(asked, dataset).title, {"natural": learner.natural}
    for threat in learner.threats:
        named = {title(column): accuracy for column, accuracy in threat.columns.items()} | {"worst": threat.worst}
        found |= {f"{threat.threat}: {name}": accuracy for name, accuracy in named.items()}
    values = {name: 100 * accuracy.value for name, accuracy in found.items()}
    print(f"# {preset}, seed {config.seed}, n = {learner.natural.n}: {values}", flush=True)
    return values


if __name__ == "__main__":
    sys.exit(main())
