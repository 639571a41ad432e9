"""One Generalist step: the naive loop, ours on plain paths, and ours, side by side.

    python benchmarks/training_step.py

Process CPU time on one thread, the sides in turn, medians after a warm-up; ratios first. A step is one of each expert,
after the warm-up, with the shares of the global learner.
"""

import argparse
import copy
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.naive_training import NaiveTraining
from generalist import engine
from generalist.attacks.gradient import slope
from generalist.attacks.losses import cross_entropy
from generalist.config import Config, load
from generalist.experts import Expert, Recipe, initial_state
from generalist.mixing import courses
from generalist.tensors import Batch, ImageShape

STEPS = 1000  # of the training that the step is one of
GREY = ImageShape(1, 8, 8, 10, mean=(0.3,), std=(0.4,))
RGB = ImageShape(3, 32, 32, 10, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
CASES = {
    "digits": ("digits", GREY, 64, ()),
    "resnet18_float32": ("cifar10-resnet18", RGB, 32, ()),
    "resnet18_bf16_attack": ("cifar10-resnet18", RGB, 32, ("engine.attack_precision=bfloat16",)),
    "resnet18_bf16": ("cifar10-resnet18", RGB, 32, ("engine.precision=bfloat16",)),
}
Step = Callable[[], object]


def experts(config: Config, shape: ImageShape) -> dict[str, Expert]:
    """Both experts at their start."""
    weights = engine.initial_weights(config.model, shape, config.seed)
    by_expert = courses(config, STEPS)
    alive = {}
    for name, options in config.experts.items():
        recipe = Recipe(options, by_expert.get(name), config.seed, config.training.batch_size, STEPS, config.engine)
        state = initial_state({key: own.clone() for key, own in weights.items()}, recipe)
        alive[name] = Expert(recipe, state, config.model, shape, torch.device("cpu"))
    return alive


def sides(case: str, batch_size: int | None) -> dict[str, Step]:
    """What is timed, by name; agreement of the attack's gradient is checked first."""
    preset, shape, usual, overrides = CASES[case]
    size = batch_size or usual
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(size, shape.channels, shape.height, shape.width, generator=draw)
    labels = torch.randint(0, shape.classes, (size,), generator=draw)
    batch = Batch(images, labels, torch.arange(size))
    own = experts(load(preset=preset, overrides=overrides), shape)
    plain = experts(load(preset=preset, overrides=["engine.plain=true"]), shape)
    robust = load(preset=preset).experts["robust"]
    attack, threat = robust.objective.attack, robust.objective.threat  # type: ignore[attr-defined]
    size_of_step = 2.5 * float(threat.eps) / attack.steps if attack.step_size is None else float(attack.step_size)
    naive = NaiveTraining(
        copy.deepcopy(plain["natural"].learner.model),
        eps=float(threat.eps),
        step_size=size_of_step,
        steps=attack.steps,
        optimizer={"lr": float(robust.optimizer.lr), "momentum": 0.9, "weight_decay": 5e-4},
    )
    exact, found = (slope(alive["robust"].learner.attackable, images, labels, cross_entropy) for alive in (plain, own))
    difference = float((found - exact).norm() / exact.norm())
    same = float((found.sign() == exact.sign()).float().mean())
    print(f"# {case}: gradients of the attack differ by {difference:.1e}, {100 * same:.2f} % of the signs are equal")
    return {
        "naive": lambda: naive.step(images, labels),
        "naive attack": lambda: naive.attacked(images, labels),
        "naive averages": naive.average,
        "plain natural": lambda: plain["natural"].step(batch, 500, 3),
        "plain robust": lambda: plain["robust"].step(batch, 500, 3),
        "ours natural": lambda: own["natural"].step(batch, 500, 3),
        "ours robust": lambda: own["robust"].step(batch, 500, 3),
    }


def timed(steps: dict[str, Step], repeats: int) -> dict[str, float]:
    """Median milliseconds of each, in turn."""
    spent: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            began = time.process_time()
            step()
            if turn:
                spent[name].append(1000 * (time.process_time() - began))
    return {name: statistics.median(own) for name, own in spent.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="batches of 16 images for ResNet-18, three repeats")
    parser.add_argument("--case", choices=list(CASES), nargs="+", default=list(CASES), help="only these")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write ratios, machine and versions there")
    arguments = parser.parse_args()
    ratios, rows = {}, []
    with engine.threads(1):
        for case in arguments.case:
            small = case == "digits"
            steps = sides(case, 16 if arguments.quick and not small else None)
            spent = timed(steps, 100 if small else 3 if arguments.quick else 5)
            ours, plain = (spent[f"{side} natural"] + spent[f"{side} robust"] for side in ("ours", "plain"))
            ratios[case] = spent["naive"] / ours
            rows.append((case, ratios[case], plain / ours, spent))
            print(f"# {case}: {ratios[case]:.2f} times the naive loop's speed", flush=True)
    print("\n| case | naive / ours | plain / ours |", " | ".join(rows[0][3]), "| (milliseconds)")
    print("|---" * (3 + len(rows[0][3])) + "|")
    for case, ratio, against_plain, spent in rows:
        parts = " | ".join(f"{own:.2f}" for own in spent.values())
        print(f"| {case} | {ratio:.2f} | {against_plain:.2f} | {parts} |")
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}"
    print(f"\n{machine}, torch {torch.__version__}, one thread")
    if arguments.json:
        versions = {"torch": torch.__version__, "python": platform.python_version()}
        result = {"ratios": ratios, "machine": machine, "versions": versions}
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
