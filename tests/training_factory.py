"""Small trainings on digits, in seconds."""

from pathlib import Path
from typing import Any

from generalist.config import Config, load
from generalist.data import Dataset, prepare
from generalist.data import load as load_data
from generalist.store import Store
from generalist.training import Fact, Outcome, run

PARAMS = Path(__file__).parent.parent / "params.yaml"

SMALL = (
    "training.epochs=5",
    "training.batch_size=256",
    "model.width=4",
    "mixing.warm_up=2",
    "mixing.interval=1",
    "mixing.weights.robust=0.6",
    "experts.robust.objective.attack.steps=2",
    "evaluation.choice.steps=2",
    "evaluation.pgd.steps=2",
    "evaluation.attack=quick",
    "evaluation.images=40",
)
"""Overrides that make the default configuration small."""


def small(*overrides: str) -> Config:
    """The default configuration, made small, then overridden."""
    return load(PARAMS, overrides=(*SMALL, *overrides))


def digits(folder: Path) -> Dataset:
    """Prepared digits."""
    prepare(small().data, folder, root=folder)
    return load_data(folder)


def finish(config: Config, dataset: Dataset, store: Path) -> tuple[list[Fact], Outcome]:
    """Run a training to its end: all facts and the outcome."""
    steps = run(config, dataset, Store(store))
    facts: list[Fact] = []
    while True:
        try:
            facts.append(next(steps))
        except StopIteration as stop:
            outcome: Any = stop.value
            return facts, outcome
