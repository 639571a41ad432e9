"""Facts that travel: what training and evaluation report, as JSON and to people. No torch here."""

import math
from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist, harmonic_mean
from typing import Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, computed_field, model_validator

from generalist.config import digest
from generalist.untrusted import parse_json, read

Z = NormalDist().inv_cdf(0.975)
"""95 % of a normal distribution lie within so many standard deviations of its mean."""


class Record(BaseModel):
    """A frozen fact; derived values are written for readers and ignored when read back."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the record in a file of JSON.

        Raises:
            OSError: there is no such file, or it can't be read.
            ValueError: it holds no such record.
        """
        return cls.model_validate(parse_json(read(path)))


class Accuracy(Record):
    """A share of n images, with its 95 % Wilson interval."""

    correct: int = Field(ge=0)
    n: int = Field(ge=0)

    @model_validator(mode="after")
    def _is_a_share(self) -> Self:
        if self.correct > self.n:
            raise ValueError(f"{self.correct} of {self.n} images can't be correct")
        return self

    @computed_field
    @property
    def value(self) -> float:
        """The share in [0, 1]; 0 of 0 images is 0."""
        return self.correct / self.n if self.n else 0.0

    @computed_field
    @property
    def interval(self) -> tuple[float, float]:
        """95 % score interval of Wilson (1927); of 0 images, everything."""
        if not self.n:
            return 0.0, 1.0
        weight = Z**2 / self.n
        centre = self.value + weight / 2
        reach = math.sqrt(weight * (self.value * (1 - self.value) + weight / 4))
        low, high = (centre - reach) / (1 + weight), (centre + reach) / (1 + weight)
        # Where none or all are correct, the score interval ends there; rounding would leave the share outside.
        return min(max(low, 0.0), self.value), max(min(high, 1.0), self.value)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def _check_attacked(attacked: Accuracy | None, before: Accuracy) -> None:
    """Refuse an accuracy against attacks that is above the one without: a mistake is not robust."""
    if attacked is not None and (attacked.n != before.n or attacked.correct > before.correct):
        raise ValueError(
            f"{attacked.correct} of {attacked.n} images can't stand against more attacks than {before.correct} of"
            f" {before.n} do"
        )


class Measured(Record):
    """A learner on the validation split: natural and robust accuracy on the same images.

    `fgsm` is the accuracy against one large step, measured of experts that train on attacks: see `training.alarms`.
    """

    natural: Accuracy
    robust: Accuracy
    fgsm: Accuracy | None = None

    @model_validator(mode="after")
    def _attacks_win_nothing(self) -> Self:
        for attacked in (self.robust, self.fgsm):
            _check_attacked(attacked, self.natural)
        return self

    @computed_field
    @property
    def harmonic(self) -> float:
        """Harmonic mean of both accuracies, known as NRR."""
        return float(harmonic_mean((self.natural.value, self.robust.value)))

    def by(self, criterion: str) -> float:
        """Return the value of a criterion of `registry.criterion`."""
        return {"harmonic": self.harmonic, "natural": self.natural.value, "robust": self.robust.value}[criterion]


class EpochRecord(Record):
    """One epoch of one expert.

    Attributes:
        expert: its name.
        epoch: epochs done, from 1.
        loss, accuracy: means over the epoch's training images, as trained on (attacked, augmented).
        gradient_norm: of all gradients together, mean over steps.
        learning_rate: of the epoch's last step.
        images: training images seen in this epoch.
        seconds: wall clock of the epoch, without validation.
        validation: the expert itself on the validation split after this epoch, where its state was stored
            (`training.checkpoint_epochs`); else None.
    """

    expert: str
    epoch: int
    loss: float
    accuracy: float
    gradient_norm: float
    learning_rate: float
    images: int
    seconds: float
    validation: Measured | None


class GlobalRecord(Record):
    """The global learner on the validation split after an epoch at which all experts' states were stored."""

    epoch: int
    validation: Measured


class RoundRecord(Record):
    """One candidate for deployment: the global learner (or the unmixed learner) at the end of a round.

    Attributes:
        round: from 0, which ends the warm-up.
        epoch: epochs done at its end, from 1.
        weights: mixing weights by expert at its last step; empty where nothing is mixed.
        handed_back: whether the experts went on from the global learner.
        validation: the candidate on the validation split.
        digest: SHA-256 (hex) of its weights.
    """

    round: int
    epoch: int
    weights: dict[str, float]
    handed_back: bool
    validation: Measured
    digest: str


_ONCE = ("pgd", "cascade", "strongest")
"""The three columns that records named before 2026-11-28, the cascade's being the headline."""


class ThreatEvaluation(Record):
    """One learner under one threat: robust accuracy by column, and what makes it doubtful.

    Attributes:
        threat: such as `linf:8/255`.
        columns: against each attack of the protocol by its name, after `VIEW/` where it went through a view of the
            model other than its decision.
        worst: on images that stand in every column; the headline.
        flags: see `generalist.attacks.result.FLAGS`.
    """

    threat: str
    columns: dict[str, Accuracy] = Field(min_length=1)
    worst: Accuracy
    flags: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _of_three_columns(cls, written: Any) -> Any:
        if not isinstance(written, Mapping) or "cascade" not in written:
            return written
        accuracies = {name: written[name] for name in _ONCE if written.get(name) is not None}
        columns = {name: Accuracy.model_validate(accuracy) for name, accuracy in accuracies.items()}
        return {**written, "columns": columns, "worst": min(columns.values(), key=lambda accuracy: accuracy.correct)}


AT = " at "
"""Stands in the name of a learner that was evaluated at another condition or width than the headline's."""


def base_name(name: str) -> str:
    """Return an expert's name, or `global`, without the condition and width at which it was evaluated."""
    return name.partition(AT)[0]


class Point(NamedTuple):
    """At which condition and width a learner is asked; None for a network that has no such choice."""

    condition: float | None = None
    width: float | None = None

    def __str__(self) -> str:
        parts = {"lambda": self.condition, "width": self.width}
        return " and ".join(f"{name} {value:g}" for name, value in parts.items() if value is not None)


class LearnerEvaluation(Record):
    """One learner on the test split.

    Attributes:
        name: an expert's name, or `global`; with condition and width (`AT`) where these are not the headline's.
        epoch: epochs done by these weights.
        natural: accuracy on clean images.
        threats: in the order of the configuration.
        union: on images that stand in every column of every threat; None where there is one threat alone.
        per_class: natural accuracy and robust accuracy under the headline's threats, by class name.
        digest: SHA-256 (hex) of its weights.
        condition: lambda at which it was evaluated, of a conditional network.
        width: share of the channels at which it was evaluated, of a slimmable network.
    """

    name: str
    epoch: int
    natural: Accuracy
    threats: tuple[ThreatEvaluation, ...]
    union: Accuracy | None = None
    per_class: dict[str, Measured]
    digest: str
    condition: float | None = Field(None, ge=0, le=1, exclude_if=lambda condition: condition is None)
    width: float | None = Field(None, gt=0, le=1, exclude_if=lambda width: width is None)

    @property
    def title(self) -> str:
        """What people call it."""
        base = base_name(self.name)
        who = "global learner" if base == "global" else f"{base} expert"
        return f"{who}, {self.at}" if any(one is not None for one in self.at) else who

    @property
    def at(self) -> Point:
        """Where it was evaluated."""
        return Point(self.condition, self.width)

    @model_validator(mode="after")
    def _attacks_win_nothing(self) -> Self:
        for threat in self.threats:
            for column in threat.columns.values():
                _check_attacked(column, self.natural)
                _check_attacked(threat.worst, column)
            _check_attacked(self.union, threat.worst)
        return self


class Protocol(Record):
    """What a robust accuracy means: two evaluations compare if their protocols agree.

    Attributes:
        split, n: the images.
        chosen: which of the split they are.
        threats: such as `linf:8/255`.
        union: whether the headline is the union of all threats; else it is the first.
        attacks: by the names of their columns, with their settings; up to a comma, these are a title.
        attacks_within: the names of those within a threat, where these aren't all.
        seed: of their random numbers.
        test_digest: of the images and labels.
        validation: what rounds were chosen by.
        code: digest of the code that attacks.
    """

    split: str
    n: int
    chosen: str = "the first"
    threats: tuple[str, ...]
    union: bool = False
    attacks: dict[str, str]
    attacks_within: dict[str, tuple[str, ...]] = Field(default_factory=dict, exclude_if=lambda within: not within)
    seed: int
    test_digest: str
    validation: str
    code: str = ""

    @model_validator(mode="before")
    @classmethod
    def _of_three_columns(cls, written: Any) -> Any:
        if not isinstance(written, Mapping) or "cascade" not in written:
            return written
        return {**written, "attacks": {name: written[name] for name in _ONCE if name in written}}

    def title(self, column: str) -> str:
        """Return what people call a column of `ThreatEvaluation`: an attack, and the view that it went through."""
        view, _, attack = column.rpartition("/")
        title = self.attacks.get(attack, attack).partition(",")[0]
        return f"{title} through {view}" if view else title

    @property
    def headline(self) -> str:
        """What robust accuracies are quoted by, such as `worst of PGD and standard`."""
        within = {name for threat in self.headline_threats for name in self.within(threat)}
        return f"worst of {' and '.join(self.title(name) for name in self.attacks if name in within)}"

    def within(self, threat: str) -> tuple[str, ...]:
        """Return the names of the attacks within a threat."""
        return self.attacks_within.get(threat, tuple(self.attacks))

    @property
    def headline_threats(self) -> tuple[str, ...]:
        """The threats in all of which an image must stand to count in the headline."""
        return self.threats if self.union else self.threats[:1]

    def digest(self) -> str:
        """Return the SHA-256 (hex) of the protocol; one that was written before unions keeps its own."""
        return digest(self.model_dump(mode="json", exclude=None if self.union else {"union"}))


class Evaluation(Record):
    """Everything measured on the test split, once, after all choices."""

    protocol: Protocol
    deployed: str
    chosen: RoundRecord
    criterion: str
    learners: dict[str, LearnerEvaluation]
    numerics: dict[str, Any]
    seconds: float

    @model_validator(mode="after")
    def _is_of_its_protocol(self) -> Self:
        if self.deployed not in self.learners:
            raise ValueError(f"the deployed learner {self.deployed} is not among those evaluated")
        for name, learner in self.learners.items():
            threats = tuple(threat.threat for threat in learner.threats)
            if learner.name != name or learner.natural.n != self.protocol.n or threats != self.protocol.threats:
                raise ValueError(f"learner {name} was not evaluated by the protocol")
            if any(not {*self.protocol.within(one.threat)} <= one.columns.keys() for one in learner.threats):
                raise ValueError(f"learner {name} lacks attacks of the protocol")
            if self.protocol.union and learner.union is None:
                raise ValueError(f"learner {name} lacks the union of the protocol's threats")
        return self

    def robust(self, learner: LearnerEvaluation) -> Accuracy:
        """Return what a learner's robust accuracy is quoted by: its union where that is the headline."""
        return learner.union if self.protocol.union and learner.union is not None else learner.threats[0].worst

    @property
    def headline(self) -> LearnerEvaluation:
        """The deployed learner."""
        return self.learners[self.deployed]

    @property
    def flags(self) -> tuple[str, ...]:
        """Whatever makes the deployed learner's robust accuracy doubtful."""
        return tuple(f"{t.threat}: {flag}" for t in self.headline.threats for flag in t.flags)


class History(Record):
    """The whole course of a training.

    Attributes:
        epochs: every epoch of every expert.
        course: the global learner wherever it was measured, the warm-up included; empty where nothing is mixed.
        rounds: the candidates for deployment.
    """

    epochs: tuple[EpochRecord, ...]
    course: tuple[GlobalRecord, ...]
    rounds: tuple[RoundRecord, ...]
