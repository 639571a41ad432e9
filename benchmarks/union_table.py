"""Methods against several norms on digits: each norm and their union, over seeds, at equal work.

    python benchmarks/union_table.py [--seeds 3] [--epochs 40] [--quick]

Each training takes as many epochs as the floating-point operations of so many epochs of the reference row allow,
counted on one step of all its experts, attacks included. Of each seed the deployed learner is evaluated on the test
split in every threat by `evaluation.pgd` and `evaluation.attack`; an image counts in the union if it stands in all.
Differences of the union from the reference are paired by seed, with a 95 % interval over seeds (Student's t).
"""

import statistics
import time
from pathlib import Path

import torch

from benchmarks.machine import add_trainings, arguments, table, tell
from benchmarks.trainings import evaluated, finished, prepared
from generalist import engine
from generalist.config import Config, load
from generalist.data import Split, images_on
from generalist.expert_group import ExpertGroup
from generalist.expert_state import ExpertSpec, initial_state
from generalist.records import LearnerEvaluation
from generalist.significance import mean_interval
from generalist.tensors import ImageShape
from generalist.training.cost import operations

EVALUATED = (
    "evaluation.threats=[{norm: linf, eps: 0.15}, {norm: l2, eps: 0.75}, {norm: l1, eps: 1.5}]",
    "evaluation.headline=union",
)
REFERENCE = "AVG"
EPOCHS = 40
ROWS = {
    "PGD-AT, Linf": ("digits-pgd-at",),
    "PGD-AT, L2": ("digits-pgd-at", "experts.robust.objective.threat={norm: l2, eps: 0.75}"),
    "PGD-AT, L1": ("digits-pgd-at", "experts.robust.objective.threat={norm: l1, eps: 1.5}"),
    "MAX": ("digits-union-max",),
    REFERENCE: ("digits-union-avg",),
    "MSD": ("digits-union-msd",),
    "E-AT": ("digits-union-eat",),
    "MAT, the student": ("digits-mat-union",),
    "Generalist of three norms": ("digits-generalist-linf-l2-l1",),
}
"""A preset and overrides by title."""


def main() -> None:
    """Print the table."""
    parser = arguments(__doc__, quick="the quick cascade on 100 images, a tenth of the epochs, two seeds")
    add_trainings(parser, seeds=3)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of the reference row; the others' work is as much")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS), help="beside the reference")
    given = parser.parse_args()
    more = [*given.set, *(["evaluation.attack=quick", "evaluation.images=100"] if given.quick else [])]
    epochs, seeds = (EPOCHS // 10, 2) if given.quick else (given.epochs, given.seeds)
    began, found = time.perf_counter(), dict[str, list[LearnerEvaluation]]()
    budget = epochs * work(_config(REFERENCE, more))
    lengths = {title: round(budget / work(_config(title, more))) for title in ROWS if title in (*given.rows, REFERENCE)}
    for seed in range(seeds):
        for title, length in lengths.items():
            config = _config(title, [*more, f"seed={seed}", f"training.epochs={length}"], length)
            own = _evaluated(config)
            found.setdefault(title, []).append(own)
            seconds = time.perf_counter() - began
            print(f"# seed {seed}, {title}, {length} epochs: union {own.union}, {seconds:.0f} s", flush=True)
    _print(found, lengths, given.json, config)


def _config(title: str, overrides: list[str], epochs: int = EPOCHS) -> Config:
    preset, *own = ROWS[title]
    mixed = [f"mixing.warm_up={epochs * 5 // 8}"] if "generalist" in preset else []
    return load(preset=preset, overrides=[*own, *EVALUATED, "training.checkpoint_epochs=2", *mixed, *overrides])


def work(config: Config) -> int:
    """Return the floating-point operations of one step of all experts on a batch, their attacks included."""
    shape, size = ImageShape(1, 8, 8, 10, (0.5,), (0.5,)), config.training.batch_size
    specs = [
        ExpertSpec(expert, None, config.seed, size, total=2, engine=config.engine) for expert in config.experts.values()
    ]
    weights = engine.initial_weights(config.model, shape, 0)
    states = [initial_state(weights, spec) for spec in specs]
    group = ExpertGroup.from_states(
        config, specs, states, shape, on=torch.device("cpu"), coupled=False, teachers=[None] * len(specs)
    )
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (size, 1, 8, 8), generator=draw, dtype=torch.uint8)
    labels = torch.randint(10, (size,), generator=draw)
    batch = images_on(Split(images.numpy(), labels.numpy()), torch.device("cpu"), "resident")
    return operations(lambda: group.epoch(batch))


def _evaluated(config: Config) -> LearnerEvaluation:
    dataset = prepared(config, "union-table")
    return evaluated(config, dataset, finished(config, dataset), config.evaluation)


def _print(
    found: dict[str, list[LearnerEvaluation]], lengths: dict[str, int], file: Path | None, config: Config
) -> None:
    """Print means over seeds in per cent, and how far each union is from the reference's, seed by seed."""
    unions = {title: [100 * own.union.value for own in row if own.union is not None] for title, row in found.items()}
    rows, ratios = [], {}
    for title, row in found.items():
        threats = [[100 * own.threats[index].worst.value for own in row] for index in range(len(row[0].threats))]
        values = [[100 * own.natural.value for own in row], *threats, unions[title]]
        apart = mean_interval([one - other for one, other in zip(unions[title], unions[REFERENCE], strict=True)])
        ratios[title] = list(apart)
        difference = "" if title == REFERENCE else f"{apart[0]:+.1f} [{apart[1]:.1f}, {apart[2]:.1f}]"
        means = [f"{statistics.mean(own):.1f} ± {statistics.stdev(own) if len(own) > 1 else 0:.1f}" for own in values]
        rows.append([title, str(lengths[title]), *means, difference])
    evaluation, example = config.evaluation, found[REFERENCE][0]
    print(
        f"\n{config.data.name}, test split, n = {example.natural.n}, worst of PGD-{evaluation.pgd.steps} and"
        f" {evaluation.attack}, {len(found[REFERENCE])} seeds: mean ± standard deviation\n"
    )
    norms = [threat.threat for threat in example.threats]
    print(table(["training", "epochs", "natural", *norms, "union", f"union, less that of {REFERENCE}"], rows))
    tell(ratios, engine.device(config.training.device), file)


if __name__ == "__main__":
    main()
