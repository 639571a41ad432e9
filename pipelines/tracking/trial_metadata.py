"""What is told to MLflow of a search and its trials: params, metrics and tags, as plain values. No MLflow here."""

import re
import shlex
from collections.abc import Iterator, Sequence

from generalist.masking import masked
from generalist.records import GlobalRecord
from generalist.untrusted import markdown
from pipelines.tracking import run_metadata
from pipelines.trial_records import State, StudyRecord, TrialRecord

STATUS: dict[State, str] = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
"""How MLflow calls the end of a trial; its own storage for Optuna says KILLED of a pruned one, too."""


def run_name(trial: TrialRecord) -> str:
    """Return a name such as `trial 7` or `trial 8 (pruned)`: MLflow's list shows pruned and failed ones alike."""
    return f"trial {trial.number}" + (f" ({trial.state})" if trial.state != "complete" else "")


def params(trial: TrialRecord) -> dict[str, str]:
    """Return the trial's point by dotted path, and all that sets it apart from the study's configuration."""
    point = {path: str(value) for path, value in trial.params.items()}
    # As a shell takes them: a choice of a whole optimizer has blanks and braces.
    fields = {**point, "overrides": shlex.join(trial.overrides)} if trial.overrides else point
    return {path: masked(value)[: run_metadata.LONGEST_PARAM] for path, value in fields.items()}


def tags(trial: TrialRecord) -> dict[str, str]:
    """Return number, state, and why it ended early."""
    known = {"generalist.trial": str(trial.number), "generalist.state": trial.state, "generalist.reason": trial.reason}
    fields = {key: masked(value) for key, value in known.items() if value is not None}
    if trial.reason is not None:
        fields["mlflow.note.content"] = (
            f"{trial.state.capitalize()}: {markdown(fields['generalist.reason'])}"  # on the run's page
        )
    return run_metadata.tags_of(fields)


def curve(trial: TrialRecord) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield epochs and what was measured then, under the names that a training's run has for it."""
    for point in trial.curve:
        record = GlobalRecord(epoch=point.epoch, validation=point.validation)
        yield point.epoch, run_metadata.metrics(record, deployed="global")


def metrics(trial: TrialRecord, objective: Sequence[str]) -> dict[str, float]:
    """Return what came of a trial, and what it cost. The value of a pruned one is in its curve, before its end."""
    values: dict[str, float] = {
        "trial/epochs_asked": trial.epochs_asked,
        "trial/epochs_trained": trial.epochs_trained,
        "trial/seconds": trial.seconds,
        "trial/overhead": trial.overhead,
    }
    if trial.state == "complete":
        values |= dict(zip(value_names(objective), trial.values, strict=False))
    if trial.epoch is not None:
        values["trial/epoch"] = trial.epoch
    if trial.validation is not None:
        values["trial/natural"] = trial.validation.natural.value
        values["trial/robust"] = trial.validation.robust.value
        values["trial/harmonic"] = trial.validation.harmonic
    if trial.remix is not None:
        values["remix/natural"] = trial.remix.validation.natural.value
        values["remix/robust"] = trial.remix.validation.robust.value
        values["remix/harmonic"] = trial.remix.validation.harmonic
        values |= {f"remix/weight_{expert}": weight for expert, weight in trial.remix.weights.items()}
    return values


def value_names(objective: Sequence[str]) -> list[str]:
    """Return the metrics of the values: `trial/value`, or one for each of several objectives."""
    if len(objective) == 1:
        return ["trial/value"]
    return ["trial/value_" + re.sub(r"\W+", "_", name) for name in objective]


def study_metrics(record: StudyRecord) -> dict[str, float]:
    """Return what a search cost and found."""
    best, asked, trained = record.chosen, record.epochs_asked, record.epochs_trained
    values: dict[str, float] = {
        "study/trials": len(record.trials),
        **{f"study/{state}": record.states.get(state, 0) for state in STATUS},
        "study/epochs_asked": asked,
        "study/epochs_trained": trained,
        "study/epochs_saved": asked - trained,
        "study/seconds": record.seconds,
        "study/workers": record.workers,
    }
    if best is None:
        return values
    trial_values = metrics(best, record.objective)
    best_values = {
        f"best/{name.removeprefix('trial/')}": value
        for name, value in trial_values.items()
        if name.startswith("trial/")
    }
    return {**values, **best_values, "best/trial": best.number}


def study_tags(record: StudyRecord) -> dict[str, str]:
    """Return what was searched, and which trial is the best."""
    searched = ", ".join(f"{path}: {values}" for path, values in record.dimensions.items())
    fields = {"generalist.space": searched, "mlflow.note.content": summary(record)}
    if record.best is not None:
        fields["generalist.best"] = str(record.best)
    return run_metadata.tags_of({key: masked(value) for key, value in fields.items()})


def summary(record: StudyRecord) -> str:
    """Return two sentences: what was found, and what it cost."""
    counts = ", ".join(f"{count} {state}" for state, count in record.states.items() if state in STATUS)
    cost = (
        f"{len(record.trials)} trials ({counts or 'none ended'}): {record.epochs_trained} of {record.epochs_asked}"
        " epochs asked for were trained."
    )
    best = record.chosen
    if best is None or best.validation is None:
        return cost
    judged = best.validation
    return (
        f"Trial {best.number} is the best by {' and '.join(record.objective)}: on {judged.natural.n} validation images"
        f" natural {judged.natural}, robust {judged.robust}. {cost}"
    )
