"""What tuning gained: a tuned configuration against the default one on the test split, over several seeds, paired.

    generalist tune && python benchmarks/tuned_against_default.py tuning/NAME/best.yaml

Seeds begin at 1: the search had seed 0. Both are trained as they are, each seed's deployed learner is evaluated by
the whole of `evaluation.attack`, and the difference of the harmonic means is given with a 95 % interval over seeds
(Student's t).
"""

import statistics
import time
from pathlib import Path

import torch

from benchmarks.machine import arguments, table, tell
from benchmarks.trainings import deployed, finished, prepared
from generalist import engine
from generalist.config import Config, load
from generalist.evaluation import measure, subset
from generalist.records import Measured
from generalist.significance import mean_interval


def main() -> None:
    """Print both, and the difference."""
    parser = arguments(__doc__, quick="the quick cascade, two seeds")
    parser.add_argument("tuned", type=Path, help="a configuration, such as tuning/NAME/best.yaml")
    parser.add_argument("--default", default="digits", help="the preset that it is compared with")
    parser.add_argument("--seeds", type=int, default=5, help="seeds 1, 2, …")
    parser.add_argument("--set", action="append", default=[], help="an override for both, such as training.epochs=20")
    given = parser.parse_args()
    more = [*given.set, *(["evaluation.attack=quick"] if given.quick else [])]
    began, seeds = time.perf_counter(), range(1, 1 + (2 if given.quick else given.seeds))
    found: dict[str, list[Measured]] = {"default": [], "tuned": []}
    for seed in seeds:
        overrides = [f"seed={seed}", *more]
        for way, config in (
            ("default", load(preset=given.default, overrides=overrides)),
            ("tuned", load(given.tuned, overrides=overrides)),
        ):
            found[way].append(_tested(config))
            own = found[way][-1]
            print(
                f"# seed {seed}, {way}: natural {own.natural}, {config.evaluation.attack} {own.robust},"
                f" harmonic mean {100 * own.harmonic:.2f}, {time.perf_counter() - began:.0f} s",
                flush=True,
            )
    _print(found, config, given.json)


def _tested(config: Config) -> Measured:
    dataset = prepared(config, f"tuned-{config.data.name}")
    outcome = finished(config, dataset)
    with engine.threads(config.training.threads):
        split = subset(dataset.test, config.evaluation)
        model = deployed(config, dataset, outcome)
        return measure(model, split, threats=config.evaluation.headline_threats, attack=config.evaluation)


def _print(found: dict[str, list[Measured]], config: Config, file: Path | None) -> None:
    values = {
        way: {
            "natural": [100 * one.natural.value for one in own],
            "robust": [100 * one.robust.value for one in own],
            "harmonic mean": [100 * one.harmonic for one in own],
        }
        for way, own in found.items()
    }
    threats, n = config.evaluation.headline_threats, found["tuned"][0].natural.n
    against = " and ".join(f"{threat.norm} {threat.eps}" for threat in threats)
    print(
        f"\n{config.data.name}, test split, n = {n}, {against}, {config.evaluation.attack},"
        f" {len(found['tuned'])} seeds: means, and differences with 95 % intervals over seeds, in points\n"
    )
    rows, ratios = [], {}
    for what, tuned in values["tuned"].items():
        default = values["default"][what]
        mean, low, high = mean_interval([one - other for one, other in zip(tuned, default, strict=True)])
        ratios[what] = [mean, low, high]
        means = [f"{statistics.mean(own):.2f}" for own in (default, tuned)]
        rows.append([what, *means, f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"])
    print(table(["", "default", "tuned", "difference"], rows))
    tell(ratios, torch.device("cpu"), file)


if __name__ == "__main__":
    main()
