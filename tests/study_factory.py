"""Searches made up for the tests of pages and of MLflow: records, and Optuna's studies of the same trials."""

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from generalist.records import Accuracy, Measured
from pipelines.trial_records import Finalist, Point, Remix, StudyRecord, TrialRecord

SPACE: dict[str, BaseDistribution] = {
    "mixing.interval": IntDistribution(1, 20),
    "mixing.decay": CategoricalDistribution(["0.99", "0.999"]),
    "experts.robust.optimizer": CategoricalDistribution(["sgd", "adam"]),
    "experts.robust.optimizer.momentum": FloatDistribution(0.1, 0.99),
    "experts.natural.optimizer.lr": FloatDistribution(1e-4, 1.0, log=True),
}
_STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "running": TrialState.RUNNING,
}


def measured(natural: int, robust: int, n: int = 200) -> Measured:
    """Accuracies on a validation split."""
    return Measured(natural=Accuracy(correct=natural, n=n), robust=Accuracy(correct=robust, n=n))


def complete(number: int, *, pareto: bool = False) -> TrialRecord:
    """Return a trial of an epoch count and accuracies that its number decides; every other one has momentum."""
    kind = "sgd" if number % 2 == 0 else "adam"
    params: dict[str, float | int | str] = {
        "mixing.interval": number + 1,
        "mixing.decay": "0.99" if number % 3 else "0.999",
        "experts.robust.optimizer": kind,
        "experts.natural.optimizer.lr": 0.001 * (number + 1),
    }
    if kind == "sgd":
        params["experts.robust.optimizer.momentum"] = 0.5 + number / 40
    validation = measured(180 - 3 * number, 100 + 5 * (number * 7 % 12))
    values = (validation.natural.value, validation.robust.value) if pareto else (validation.harmonic,)
    return TrialRecord(
        number=number,
        state="complete",
        params=params,
        overrides=(f"mixing.interval={number + 1}", "experts.robust.optimizer={name: sgd, lr: 0.1}"),
        values=values,
        curve=tuple(Point(epoch=epoch, validation=measured(150 + epoch, 80 + epoch)) for epoch in (5, 10, 15)),
        epoch=15,
        validation=validation,
        remix=Remix(weights={"natural": 0.3, "robust": 0.7}, validation=measured(175 - 3 * number, 108)),
        epochs_asked=30,
        epochs_trained=30 if number == 0 else 13,
        seconds=12.5,
        overhead=0.05,
    )


def pruned(number: int) -> TrialRecord:
    """Return a trial that was stopped at its second measurement."""
    whole = complete(number)
    update = {
        "state": "pruned",
        "values": (0.4,),
        "curve": whole.curve[:2],
        "epoch": None,
        "validation": None,
        "remix": None,
        "epochs_asked": 20,
        "reason": "at epoch 10 its value 0.4000 was below the median of the others",
    }
    return whole.model_copy(update=update)


def failed(number: int) -> TrialRecord:
    """Return a trial that ended before anything was measured."""
    return TrialRecord(number=number, state="failed", params={"mixing.interval": 3}, seconds=1.0, reason="it diverged")


def mixed(whole: int = 12) -> StudyRecord:
    """So many complete trials, three pruned ones, a failed and a running one; conditional parameters; two finalists."""
    trials = [complete(number) for number in range(whole)]
    second, best = sorted(trials, key=lambda trial: trial.values)[-2:]
    trials += [pruned(whole + more) for more in range(3)] + [failed(whole + 3)]
    finalists = [
        Finalist(number=trial.number, attack="standard", validation=measured(170, 90 - place), values=(0.6 - place,))
        for place, trial in enumerate((best, second))
    ]
    return _record(
        [*trials, TrialRecord(number=whole + 4, state="running")], best=best.number, finalists=tuple(finalists)
    )


def front() -> StudyRecord:
    """Eight complete trials of two objectives."""
    record = _record([complete(number, pareto=True) for number in range(8)], best=0)
    return record.model_copy(update={"objective": ("natural accuracy", "robust accuracy")})


def one() -> StudyRecord:
    """Return a single complete trial."""
    return _record([complete(0)], best=0)


def none() -> StudyRecord:
    """Return a search that has just begun."""
    return _record([], best=None)


def study_of(record: StudyRecord) -> optuna.Study:
    """Optuna's study of the same trials, in memory."""
    study = optuna.create_study(directions=["maximize"] * len(record.objective))
    for trial in record.trials:
        study.add_trial(
            optuna.trial.create_trial(
                state=_STATES[trial.state],
                params=dict(trial.params),
                distributions={name: SPACE[name] for name in trial.params},
                values=list(trial.values) if trial.state == "complete" or trial.state == "pruned" else None,
                intermediate_values={}
                if len(record.objective) > 1
                else {point.epoch: point.validation.harmonic for point in trial.curve},
            )
        )
    return study


def _record(trials: list[TrialRecord], *, best: int | None, finalists: tuple[Finalist, ...] = ()) -> StudyRecord:
    return StudyRecord(
        name="a study",
        objective=("harmonic mean",),
        dimensions={"mixing.interval": "1 to 20", "experts.robust.optimizer": "sgd or adam"},
        trials=tuple(trials),
        finalists=finalists,
        best=best,
        workers=2,
        seconds=185.4,
    )
