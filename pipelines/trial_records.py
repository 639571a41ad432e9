"""What a search tells of its trials, as plain values: for summaries, MLflow and pages. No Optuna here."""

from collections import Counter
from typing import Literal, get_args

from pydantic import Field

from generalist.records import Measured, Record

State = Literal["complete", "pruned", "failed", "running", "waiting"]


class Point(Record):
    """The global learner of a trial on the validation split after an epoch, by `evaluation.selection_attack`."""

    epoch: int
    validation: Measured


class Remix(Record):
    """The best mixture of a trial's averaged experts, by the attack of `tuning.attack`.

    Attributes:
        weights: by expert; they sum to one.
        validation: on the validation split.
    """

    weights: dict[str, float]
    validation: Measured


class TrialRecord(Record):
    """One trial.

    Attributes:
        number: from 0, in its study.
        state: where it stands.
        params: its point in the space: by dotted path, a number or the name of a choice.
        overrides: what makes the configuration of the study this trial's, such as `mixing.interval=3`.
        values: of the objective, one or two; empty before its end. A pruned trial has its latest ones.
        curve: what was measured on the way.
        epoch: of the candidate that was chosen; None before its end.
        validation: that candidate by the attack of `tuning.attack`; None before its end, and if pruned.
        remix: the best that re-mixing afterwards would have given, where it is better.
        epochs_asked: epochs of all experts up to where the trial got.
        epochs_trained: those of them that no other trial, and no earlier attempt, had trained before.
        seconds: from its first to its last moment, its worker's.
        overhead: those of them in which nothing was trained or measured and no other worker waited for.
        reason: why it was pruned or failed.
    """

    number: int
    state: State
    params: dict[str, float | int | str] = Field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    values: tuple[float, ...] = ()
    curve: tuple[Point, ...] = ()
    epoch: int | None = None
    validation: Measured | None = None
    remix: Remix | None = None
    epochs_asked: int = 0
    epochs_trained: int = 0
    seconds: float = 0.0
    overhead: float = 0.0
    reason: str | None = None


class Finalist(Record):
    """One of the best trials, judged anew.

    Attributes:
        number: of the trial.
        attack: by which, such as `standard`.
        validation: its chosen candidate on the validation split.
        values: of the objective.
    """

    number: int
    attack: str
    validation: Measured
    values: tuple[float, ...]


class StudyRecord(Record):
    """A search.

    Attributes:
        name: of the study.
        objective: what its values are, one or two, such as `harmonic mean`.
        dimensions: by dotted path, what was searched, for people.
        trials: in the order of their numbers.
        finalists: the best first.
        best: the number of the chosen trial; None before there is any.
        workers: how many worked at once.
        seconds: that the search took, all its sittings added up.
        leading: processor seconds of the process that led it, in these: storage, MLflow, what people are told.
        endless: dimensions of which hardly two trials have the same value, so that they share less.
    """

    name: str
    objective: tuple[str, ...]
    dimensions: dict[str, str]
    trials: tuple[TrialRecord, ...]
    finalists: tuple[Finalist, ...] = ()
    best: int | None = None
    workers: int = 1
    seconds: float = 0.0
    leading: float = 0.0
    endless: tuple[str, ...] = ()

    @property
    def chosen(self) -> TrialRecord | None:
        """The best trial."""
        return next((trial for trial in self.trials if trial.number == self.best), None)

    @property
    def states(self) -> dict[State, int]:
        """How many trials are in which state, of those that any is in."""
        counts = Counter(trial.state for trial in self.trials)
        return {state: counts[state] for state in get_args(State) if counts[state]}

    @property
    def epochs_asked(self) -> int:
        """Epochs of experts that the trials went through."""
        return sum(trial.epochs_asked for trial in self.trials)

    @property
    def epochs_trained(self) -> int:
        """Those of them that were trained."""
        return sum(trial.epochs_trained for trial in self.trials)

    @property
    def overhead(self) -> float:
        """Seconds a trial beside training and measuring: the workers', and the processor's for what leads them."""
        ended = [trial.overhead for trial in self.trials if trial.seconds]
        return (sum(ended) + self.leading) / len(ended) if ended else 0.0
