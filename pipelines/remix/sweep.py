"""What mixtures of a finished training come to on the validation split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from generalist.atomic_files import write_atomically
from generalist.config import load
from generalist.errors import BadInput
from generalist.records import Measured
from generalist.report import Mixture, MixtureSeries, attack_in_words, remixes
from generalist.store import StateLost, tensors_digest
from generalist.tensors import Weights
from generalist.training import (
    AveragedExperts,
    CheckpointRefs,
    MeasuredMixture,
    Trainer,
    averaged_experts,
    measure_mixtures,
    mix_averaged,
    rank_mixtures,
    sweep,
)
from pipelines import steps
from pipelines.results import Results
from pipelines.results_manifest import check_whole
from pipelines.workspace import Workspace

FINALISTS = 3
"""How many of the best mixtures are judged by the cascade."""


@dataclass(frozen=True)
class Goal:
    """What makes a mixture good.

    Attributes:
        criterion: of the registry.
        natural_at_least: if given, the most robust one is the best among those of such a natural accuracy.
    """

    criterion: str
    natural_at_least: float | None = None

    def __post_init__(self) -> None:
        if self.natural_at_least is not None and not 0 < self.natural_at_least < 1:
            raise BadInput(
                f"--natural-at-least is {self.natural_at_least:g}, but an accuracy lies between 0 and 1, such as 0.9"
            )

    def value(self, measured: Measured) -> float:
        """Return a number that is the larger, the better; it is negative where a mixture is not accurate enough."""
        if self.natural_at_least is None:
            return measured.by(self.criterion)
        natural = measured.natural.value
        return measured.robust.value if natural >= self.natural_at_least else natural - 1.0

    def __str__(self) -> str:
        if self.natural_at_least is None:
            return f"{self.criterion}{' mean' if self.criterion == 'harmonic' else ' accuracy'}"
        return f"robust accuracy where the natural one is at least {self.natural_at_least:g}"


@dataclass(frozen=True)
class RemixSweep:
    """What mixtures of a finished training come to on the validation split.

    Attributes:
        run: the results of that training.
        training, averaged, last: its steps, its averaged experts, and where its experts stand at its end.
        goal: what was looked for.
        mixtures: the sweep in order of weights, by `evaluation.selection_attack`.
        finalists: the best of them, and the learner as it was trained, by the cascade; the best first.
    """

    run: Results
    training: Trainer
    averaged: AveragedExperts
    last: CheckpointRefs
    goal: Goal
    mixtures: tuple[MeasuredMixture, ...]
    finalists: tuple[MeasuredMixture, ...]

    def is_trained(self, mixture: MeasuredMixture) -> bool:
        """Return whether it is the learner as it was trained."""
        return mixture.factors == self.averaged.coefficients

    @property
    def best(self) -> MeasuredMixture:
        """The best of the finalists."""
        return self.finalists[0]

    @property
    def trained(self) -> MeasuredMixture:
        """The learner as it was trained, by the cascade."""
        return next(finalist for finalist in self.finalists if self.is_trained(finalist))

    @property
    def weights(self) -> Weights:
        """Of the best."""
        return mix_averaged(self.averaged, self.best.factors)

    def by_choice(self, mixture: MeasuredMixture) -> Measured:
        """Return a finalist's accuracies by `evaluation.selection_attack`."""
        return next(candidate.validation for candidate in self.mixtures if candidate.factors == mixture.factors)

    @property
    def is_better(self) -> bool:
        """Whether the best is better than the learner as it was trained."""
        return self.goal.value(self.best.validation) > self.goal.value(self.trained.validation)

    def check(self) -> None:
        """Refuse a goal that no mixture reaches.

        Raises:
            BadInput: the best is not accurate enough.
        """
        if self.goal.value(self.best.validation) < 0:
            most = max(finalist.validation.natural.value for finalist in self.finalists)
            raise BadInput(
                f"no mixture of {self.run.folder} reaches a natural accuracy of {self.goal.natural_at_least:g} on the"
                f" validation split, the nearest has {most:.4f}: ask for less with --natural-at-least"
            )


def words(factors: Mapping[str, float]) -> str:
    """Return words such as `natural 0.3, robust 0.7`."""
    return ", ".join(f"{name} {factor:.3g}" for name, factor in factors.items())


def sweep_mixtures(workspace: Workspace, run: Results, *, natural_at_least: float | None, points: int) -> RemixSweep:
    """Sweep over mixtures of a training, and judge the best.

    Raises:
        BadInput: `run` holds no whole results of a global learner, or the store does not hold its experts any more.
    """
    check_whole(run)
    config = load(run.params)
    goal, before = Goal(config.registry.criterion, natural_at_least), run.read_evaluation()
    if config.deploy != "global":
        raise BadInput(f"{run.folder} deploys {config.deploy}, which is no mixture: name results of `deploy: global`")
    training = steps.training(config, workspace)
    ends = training.ends()
    if before.chosen.epoch not in ends:
        raise BadInput(f"{run.evaluation} is not of the configuration beside it: make both with `generalist train`")
    last = ends[config.training.epochs]
    try:
        training.learners(last)
        averaged = averaged_experts(training, ends[before.chosen.epoch])
    except StateLost:
        raise BadInput(
            f"the store no longer holds the experts of {run.folder}: train them again with"
            f" `generalist train --params {run.params} --out {run.folder}`"
        ) from None
    mixtures = sweep(training, averaged, config.evaluation.selection_attack, points)
    best = rank_mixtures(mixtures, averaged, value=goal.value)[:FINALISTS]
    if averaged.coefficients not in [mixture.factors for mixture in best]:
        best += [mixture for mixture in mixtures if mixture.factors == averaged.coefficients]
    finalists = measure_mixtures(training, averaged, [mixture.factors for mixture in best], config.evaluation)
    finalists = rank_mixtures(finalists, averaged, value=goal.value)
    return RemixSweep(run, training, averaged, last, goal, tuple(mixtures), tuple(finalists))


def place(workspace: Workspace, sweep: RemixSweep, named: Path | None) -> Results:
    """Return where the results go: the folder that was named, or one of the mixture's own.

    Raises:
        BadInput: those of the training lie there.
    """
    results = Results(named or workspace.runs / f"remix-{tensors_digest(sweep.weights)[:12]}")
    if results.folder.resolve() == sweep.run.folder.resolve():
        raise BadInput(f"{results.folder} holds what is to be mixed again: name another folder with --out")
    return results


def draw(sweep: RemixSweep, target: Results) -> None:
    """Draw all mixtures in the trade-off plane."""
    options, names = sweep.training.config.evaluation, list(sweep.averaged.coefficients)
    corners = {name: {other: float(other == name) for other in names} for name in names}
    labels = {
        id(mixture): f"{name} alone"
        for mixture in sweep.mixtures
        for name, one in corners.items()
        if mixture.factors == one
    }

    def series(attack: str, mixtures: Sequence[MeasuredMixture], *, line: bool = False) -> MixtureSeries:
        return MixtureSeries(
            attack, [Mixture(labels.get(id(mixture), ""), mixture.validation) for mixture in mixtures], line
        )

    content = remixes(
        series(
            attack_in_words(options.selection_attack, options.headline_threats), sweep.mixtures, line=len(names) == 2
        ),
        series(f"the best, {options.attack} cascade", sweep.finalists),
        trained=[sweep.by_choice(sweep.trained), sweep.trained.validation],
        chosen=Mixture(words(sweep.best.factors), sweep.best.validation),
    )
    write_atomically(target.remix, content)
