"""A part of `gpu_short.sh`: short trainings of ResNet-18 on CIFAR-10, and AutoAttack on what they have learnt."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import compiler_cache, gpu_packages, machine
from benchmarks.cifar10_files import BATCHES, gathered, prepare_some, state
from benchmarks.gpu_accuracy import attack
from benchmarks.gpu_bench import Bench, LateError, WaitingError
from benchmarks.gpu_fast_ways import fastest
from benchmarks.gpu_results import counted, split, throughput
from benchmarks.sides import Case, batch_of
from generalist.config import Config, load
from generalist.data import Dataset, prepare
from generalist.data import load as load_data
from generalist.records import History
from generalist.training.__main__ import DONE, TO_BE_CONTINUED
from generalist.training.__main__ import main as train

LEAST_SECONDS = 45
"""That must be left for a training to begin: its weights are lost where the machine goes before they are attacked."""

NATURAL_CHOICE = "registry.criterion=natural"
"""Of the state of a natural training: in any other, robustness is lost epoch by epoch."""


@dataclass(frozen=True)
class Training:
    """A short training of one expert.

    Attributes:
        name: of its figures and files.
        preset: the configuration.
        overrides: what makes it this one, but for the number of epochs.
        expert: which of the experts of `Ours` costs what its expert does.
        share: of the time that is left, for its epochs.
        most: epochs.
    """

    name: str
    preset: str
    overrides: tuple[str, ...]
    expert: str
    share: float
    most: int

    def config(self, epochs: int) -> Config:
        """Return the configuration with so many epochs."""
        return load(preset=self.preset, overrides=self.words(epochs))

    def words(self, epochs: int) -> list[str]:
        """Return all overrides."""
        return [*self.overrides, f"training.epochs={epochs}", "training.checkpoint_epochs=1"]


def trainings(bench: Bench) -> list[Training]:
    """Return the natural training and PGD-AT, both of one expert, with a rate that falls to nearly nothing."""
    if bench.tiny:
        small = ("model.width=4", "training.batch_size=512")
        return [
            Training("natural", "digits-natural", (*small, NATURAL_CHOICE), "natural", 0.1, 2),
            Training("PGD-AT", "digits-pgd-at", small, "robust", 0.1, 2),
        ]
    usual = (
        f"training.device={bench.on.type}",
        f"data.path={(bench.work / 'cifar10').resolve()}",
        f"engine.compile={str('compiled' in fastest(bench)).lower()}",  # only where its code is in the cache
        "experts.robust.schedule=[[0, 1], [1, 0.02]]",
        "training.checkpoint_minutes=1",
    )
    natural = "experts.robust.objective={name: natural, label_smoothing: 0}"
    return [
        Training("natural", "cifar10-pgd-at", (*usual, natural, NATURAL_CHOICE), "natural", 0.1, 6),
        Training("PGD-AT", "cifar10-pgd-at", usual, "robust", 0.5, 12),
    ]


def train_part(bench: Bench) -> None:
    """Train naturally and by PGD-AT, and measure natural accuracy and AutoAttack on the weights of both.

    Raises:
        WaitingError: not all of CIFAR-10 is here, and what is possible with the files that are was done; or a package
            is missing.
    """
    if absent := gpu_packages.missing(gpu_packages.FOR_DATA):
        raise WaitingError(f"{', '.join(absent)} is missing. {gpu_packages.wheels(absent)}")
    todo = trainings(bench)
    here = [] if bench.tiny else _files(bench, todo[-1])
    if not _done(bench, todo[-1]):
        with compiler_cache.kept("train", out=bench.out, work=bench.work):
            peaks = bench.peaks().products
            for training in todo:
                dataset, folder = _prepared(bench, training, here)
                _train(bench, training, dataset, folder, peaks.get("tf32", peaks["float32"]))
                if training is todo[-1]:
                    (bench.out / "weights").mkdir(exist_ok=True)
                    split(_weights(bench, training), bench.out / "weights")
                if not _done(bench, training):
                    attack(bench, training.name, _weights(bench, training), training.config(1).evaluation, dataset)
    if not bench.tiny and len(here) < len(BATCHES):
        raise WaitingError(state(here))


def _done(bench: Bench, training: Training) -> bool:
    return f"{training.name}: AutoAttack" in bench.part.figures


def _files(bench: Bench, last: Training) -> list[str]:
    """Return the batches of CIFAR-10 that are here; figures of fewer, and unfinished ones of others, are dropped.

    Raises:
        WaitingError: there are less than two.
    """
    folders = os.environ.get("CIFAR10", "data/raw/cifar10").split(":")
    here = gathered([Path(folder) for folder in folders], bench.work / "cifar10")
    print(state(here), flush=True)
    known = bench.part.figures.get("files of CIFAR-10", [])
    if len(here) > len(known) or (here != known and not _done(bench, last)):
        bench.part.figures.clear()
    if len(here) < 2:
        raise WaitingError(state(here))
    bench.figure("files of CIFAR-10", lambda: here)
    return here


def _prepared(bench: Bench, training: Training, here: list[str]) -> tuple[Dataset, Path]:
    """Return the data of a training, and the folder where it is prepared from the batches that are here."""
    folder, config = bench.work / f"short-data-{training.preset}-{'-'.join(here)}", training.config(1)
    if not folder.exists():
        if bench.tiny:
            prepare(config.data, folder, root=Path.cwd())
        else:
            prepare_some(config, folder, here)
    return load_data(folder), folder


def _weights(bench: Bench, training: Training) -> Path:
    """Return the file that a training writes its deployed weights to."""
    learner = training.config(1).deploy.removeprefix("expert:")
    return bench.work / f"short-{training.name}" / f"{learner}.safetensors"


def _train(bench: Bench, training: Training, dataset: Dataset, folder: Path, peak: float) -> None:
    """Train for as many epochs as there is time.

    Raises:
        LateError: it has more to do.
    """
    weights = _weights(bench, training)
    if not weights.is_file() and not _done(bench, training):  # of a machine that is gone
        bench.part.figures.pop(f"{training.name}: training", None)
    epochs = bench.figure(f"{training.name}: epochs", lambda: _epochs(bench, training, len(dataset.train)))

    def measured() -> dict[str, Any]:
        words = [word for own in training.words(epochs) for word in ("-S", own)]
        words += ["--data", str(folder), "--store", str(bench.work / "store"), "--out", str(weights.parent)]
        code = train(["--preset", training.preset, *words, "--seconds", f"{max(bench.left, 1):.0f}"])
        if code == TO_BE_CONTINUED:
            raise LateError
        if code != DONE:
            raise RuntimeError(f"the training ended with exit code {code}, see above")
        case = Case(training.preset, dataset.shape, 1, tuple(training.words(epochs)))
        history = History.read(weights.parent / "history.json")
        speeds, achieved = throughput(history, counted(case, training.config(epochs)))
        (speed,) = speeds.values()
        best = max(record.images / record.seconds for record in history.epochs)  # the first one warms up
        return {
            "images/s": speed,
            "images/s, fastest epoch": best,
            "seconds of all epochs": sum(own.seconds for own in history.epochs),
            "share of the peak": achieved / peak,
            "share of the peak, fastest epoch": achieved / peak * best / speed,
            "images": len(dataset.train),
        }

    bench.figure(f"{training.name}: training", measured)


def _epochs(bench: Bench, training: Training, images: int) -> int:
    """Return how many epochs over so many images take the training's share of the time, from the time of a step.

    Raises:
        LateError: hardly any time is left.
    """
    if bench.tiny:
        return training.most
    if bench.left < LEAST_SECONDS:
        raise LateError
    ours = bench.ours(f"engine.compile={str('compiled' in fastest(bench)).lower()}")
    expert = {"natural": ours.natural, "robust": ours.robust}[training.expert]
    size = ours.config.training.batch_size
    batch = batch_of(bench.case.shape, size, bench.on)
    for _ in range(3):  # compiles and records
        expert.step(batch, 500, 3)
    step = machine.wall_seconds(lambda: [expert.step(batch, 500, 3) for _ in range(10)], bench.on) / 10
    return max(1, min(training.most, int(training.share * bench.left / (step * images / size))))
