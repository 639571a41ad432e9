"""Trainings compared by one protocol: what each came to, over seeds, against a reference and against curves. No torch.

A row is a training under several seeds, or a conditional or slimmable one at a lambda and width; values are in per
cent. Rows may lie on curves: one method under several values of one option, which others have to beat.
"""

import csv
import datetime
import io
import statistics
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

from pydantic import Field

from generalist.records import LearnerEvaluation, Protocol, Record
from generalist.significance import mean_interval

NATURAL, ROBUST, HARMONIC, WORST_CLASS = "natural", "robust", "harmonic mean", "worst class, robust"


class Published(Record):
    """Figures of others, in per cent: shown beside ours, and marked as not ours."""

    title: str
    natural: float = Field(ge=0, le=100)
    robust: float = Field(ge=0, le=100)
    source: str


class ComparedTraining(Record):
    """One training of a comparison, with what it cost.

    Attributes:
        title: of its row.
        curve: the curve that it lies on, if it does.
        seed: of the training.
        epochs: that it took.
        command: that trains it alone.
        passes: of the network, see `generalist.training.cost`.
        training_seconds: of all experts' epochs, whenever they ran, side by side or not.
        evaluation_seconds: wall clock.
        memory: bytes, the most that the process held which trained and evaluated it.
        learners: the deployed learner, at each lambda and width of the evaluation.
        protocol: of the evaluation.
        date, machine, commit: when, where and by which code it was evaluated.
    """

    title: str
    curve: str | None
    seed: int
    epochs: int
    command: str
    passes: float
    training_seconds: float
    evaluation_seconds: float
    memory: int
    learners: tuple[LearnerEvaluation, ...]
    protocol: Protocol
    date: datetime.date
    machine: str
    commit: str


class Spread(NamedTuple):
    """A mean over seeds, and the ends of its 95 % interval (Student's t), which are infinite for a single one."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.1f}" + (f" [{self.low:.1f}, {self.high:.1f}]" if self.low > float("-inf") else "")


class Row(NamedTuple):
    """What a row came to.

    Attributes:
        title, curve: see `ComparedTraining`.
        values: per cent by what they are of, then by seed.
        trainings: by seed.
    """

    title: str
    curve: str | None
    values: dict[str, dict[int, float]]
    trainings: dict[int, ComparedTraining]

    def spread(self, name: str) -> Spread:
        """Return mean and interval over seeds."""
        return Spread(*mean_interval(list(self.values[name].values())))

    def less(self, other: "Row", name: str) -> Spread | None:
        """Return how far it is above another row, paired by seed; None without a common seed."""
        mine, its = self.values[name], other.values[name]
        apart = [mine[seed] - its[seed] for seed in mine if seed in its]
        return Spread(*mean_interval(apart)) if apart else None


class Comparison(Record):
    """All of a comparison, finished or not.

    Attributes:
        name: of its folder.
        command: that makes it, or goes on with it.
        reference: the title of the row that differences are taken from.
        budget: what each training may cost, in words; None where each has epochs of its own.
        trainings: those that are there, in the order of rows, then seeds.
        published: figures of others.
        missing: how many trainings are still to come.
    """

    name: str
    command: str
    reference: str
    budget: str | None
    trainings: tuple[ComparedTraining, ...]
    published: tuple[Published, ...] = ()
    missing: int = 0

    def rows(self) -> list[Row]:
        """Return all rows, a conditional training's at each lambda and width."""
        found: dict[str, Row] = {}
        for training in self.trainings:
            for learner in training.learners:
                at = str(learner.at)
                title = f"{training.title}, {at}" if at else training.title
                curve = training.curve or (f"{training.title}, over lambda and width" if at else None)
                row = found.setdefault(title, Row(title, curve, {}, {}))
                _add(row, training, learner)
        return list(found.values())

    def front(self) -> list[Row]:
        """Return the rows that no other one beats in both natural and robust accuracy, by natural accuracy."""
        rows = self.rows()
        best = [row for row in rows if not any(_dominates(other, row) for other in rows)]
        return sorted(best, key=lambda row: row.spread(NATURAL).mean)

    def curves(self) -> dict[str, list[Row]]:
        """Return the rows of each curve, in order of natural accuracy."""
        found: dict[str, list[Row]] = {}
        for row in self.rows():
            if row.curve is not None:
                found.setdefault(row.curve, []).append(row)
        return {name: sorted(rows, key=lambda row: row.spread(NATURAL).mean) for name, rows in found.items()}

    def above_curves(self, row: Row) -> Spread | None:
        """Return by how much robust accuracy is above what the curves reach at its natural accuracy, paired by seed.

        A curve reaches what lies on the straight lines between its points, at that natural accuracy or at more. None
        where no curve reaches as much natural accuracy, or the row lies on a curve itself.
        """
        curves = self.curves()
        if row.curve is not None or not curves:
            return None
        apart = []
        for seed, natural in row.values[NATURAL].items():
            reached = [_reached([_place(one, seed) for one in rows if seed in one.trainings], natural)
                       for rows in curves.values()]  # fmt: skip
            if best := [robust for robust in reached if robust is not None]:
                apart.append(row.values[ROBUST][seed] - max(best))
        return Spread(*mean_interval(apart)) if apart else None

    def columns(self) -> list[str]:
        """Return the names of all values, in order."""
        return list(dict.fromkeys(name for row in self.rows() for name in row.values))

    def as_csv(self) -> str:
        """Return a line for each row and seed."""
        text, columns = io.StringIO(), self.columns()
        writer = csv.writer(text, lineterminator="\n")
        more = ["epochs", "passes", "training_seconds", "evaluation_seconds", "memory_bytes", "n", "digest"]
        writer.writerow(["row", "curve", "seed", *columns, *more, "command", "commit", "machine", "date"])
        for row in self.rows():
            for seed, training in row.trainings.items():
                values = [f"{row.values[name][seed]:.4f}" if name in row.values else "" for name in columns]
                cost = [training.epochs, f"{training.passes:.0f}", training.training_seconds]
                cost += [training.evaluation_seconds, training.memory, training.protocol.n, training.learners[0].digest]
                origin = [training.command, training.commit, training.machine, training.date]
                writer.writerow([row.title, row.curve or "", seed, *values, *cost, *origin])
        return text.getvalue()


def _add(row: Row, training: ComparedTraining, learner: LearnerEvaluation) -> None:
    row.trainings[training.seed] = training
    for name, value in _values(training.protocol, learner):
        row.values.setdefault(name, {})[training.seed] = 100 * value


def _values(protocol: Protocol, learner: LearnerEvaluation) -> Iterator[tuple[str, float]]:
    """Yield natural, robust and their harmonic mean, then every threat's columns, and what is worst."""
    natural = learner.natural.value
    union = protocol.union and learner.union is not None
    robust = learner.union.value if union and learner.union is not None else learner.threats[0].worst.value
    yield NATURAL, natural
    yield ROBUST, robust
    yield HARMONIC, float(statistics.harmonic_mean((natural, robust)))  # of zeros it is an integer
    for threat in learner.threats:
        for column, accuracy in threat.columns.items():
            yield f"{threat.threat}, {protocol.title(column)}", accuracy.value
        yield f"{threat.threat}, worst", threat.worst.value
    if learner.union is not None:
        yield "union of threats", learner.union.value
    yield WORST_CLASS, min(measured.robust.value for measured in learner.per_class.values())


def _dominates(one: Row, other: Row) -> bool:
    ours = [(one.spread(name).mean, other.spread(name).mean) for name in (NATURAL, ROBUST)]
    return all(a >= b for a, b in ours) and any(a > b for a, b in ours)


def _place(row: Row, seed: int) -> tuple[float, float]:
    return row.values[NATURAL][seed], row.values[ROBUST][seed]


def _reached(points: Iterable[tuple[float, float]], natural: float) -> float | None:
    """Return the most robust accuracy on the lines between a curve's points, at this natural accuracy or at more."""
    ordered = sorted(points)
    beyond = [robust for at, robust in ordered if at >= natural]
    if not beyond:
        return None
    for (left, low), (right, high) in pairwise(ordered):
        if left <= natural < right:
            beyond.append(low + (high - low) * (natural - left) / (right - left))
    return max(beyond)
