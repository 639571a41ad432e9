"""What a search tells of its trials, as plain values: for summaries, MLflow and pages. No Optuna here."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from generalist.records import Measured

State = Literal["complete", "pruned", "failed", "running", "waiting"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Point(_Record):
    """The global learner of a trial on the validation split after an epoch, by `evaluation.choice`."""

    epoch: int
    validation: Measured


class Remix(_Record):
    """The best mixture of a trial's averaged experts, by the attack of `tuning.attack`.

    Attributes:
        weights: by expert; they sum to one.
        validation: on the validation split.
    """

    weights: dict[str, float]
    validation: Measured


class TrialRecord(_Record):
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
    params: dict[str, float | int | str] = {}
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


class Finalist(_Record):
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


class StudyRecord(_Record):
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
        leading: processor seconds of whoever led it, in these: storage, MLflow, what people are told.
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
