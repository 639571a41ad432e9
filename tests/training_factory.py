"""Small trainings on digits, in seconds."""

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from generalist.config import Config, load
from generalist.data import Dataset, Split, prepare
from generalist.data import load as load_data
from generalist.store import Store, tensors_digest
from generalist.training import Fact, Outcome, run

PARAMS = Path(__file__).parent.parent / "params.yaml"

SMALL = (
    "data.images=640",  # 512 to train on, which are two steps, and 128 to validate on
    "training.epochs=5",
    "training.batch_size=256",
    "training.checkpoint_epochs=1",
    "model.width=4",
    "mixing.warm_up=2",
    "mixing.interval=1",
    "mixing.weights.robust=0.6",
    "experts.robust.objective.attack.steps=2",
    "evaluation.selection_attack.steps=2",
    "evaluation.pgd.steps=2",
    "evaluation.attack=quick",
    "evaluation.images=40",
    "evaluation.square_queries=20",
)
"""Overrides that make the default configuration small."""


@cache
def small(*overrides: str) -> Config:
    """Return the default configuration, made small, then overridden."""
    return load(PARAMS, overrides=(*SMALL, *overrides))


def digits(folder: Path) -> Dataset:
    """Return prepared digits."""
    prepare(small().data, folder, root=folder)
    return load_data(folder)


def finish(
    config: Config, dataset: Dataset, store: Path, *, watch: Callable[[Fact], None] = lambda _: None
) -> tuple[list[Fact], Outcome]:
    """Run a training to its end: all facts and the outcome; `watch` is called with each fact before the next."""
    facts: list[Fact] = []

    def tell(fact: Fact) -> None:
        facts.append(fact)
        watch(fact)

    outcome = run(config, dataset, Store(store), tell)
    return facts, outcome


class LeftError(Exception):
    """Whoever listened has gone."""


def leaving(after: int) -> Callable[[Fact], None]:
    """Return a listener that goes away with the so-manieth fact."""
    left = iter(range(1, after))

    def tell(_: Fact) -> None:
        if next(left, None) is None:
            raise LeftError

    return tell


def abandon(config: Config, dataset: Dataset, store: Path, *, after: int) -> None:
    """Run a training until it has told so many facts."""
    with suppress(LeftError):
        run(config, dataset, Store(store), leaving(after))
        raise AssertionError("it ended before")


def digests(outcome: Outcome) -> dict[str, str]:
    """Return what must be the same to the bit."""
    return {name: tensors_digest(weights) for name, weights in outcome.learners.items()}


def first(split: Split, count: int) -> Split:
    """Return the first images of a split."""
    return Split(split.images[:count], split.labels[:count])
