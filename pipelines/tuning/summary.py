"""What a search comes to: for people, and as JSON."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from generalist.records import Measured
from pipelines.trials import StudyRecord, TrialRecord


def as_json(record: StudyRecord) -> dict[str, Any]:
    """Return the facts that `generalist tune --json` writes."""
    best = chosen(record)
    return {
        "name": record.name,
        "trials": len(record.trials),
        "states": states(record),
        "epochs_asked": asked(record),
        "epochs_trained": trained(record),
        "seconds": record.seconds,
        "overhead_seconds_a_trial": overhead(record),
        "workers": record.workers,
        "best": None
        if best is None
        else {
            "number": best.number,
            "params": best.params,
            "values": dict(zip(record.objective, best.values, strict=False)),
        },
        "finalists": [own.model_dump(mode="json") for own in record.finalists],
    }


def lines(record: StudyRecord) -> Iterator[str]:
    """Yield the same facts for people."""
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states(record).items()))
    yield f"{len(record.trials)} trials ({counts}) in {record.seconds:.0f} s, workers: {record.workers}"
    whole, own = asked(record), trained(record)
    if whole:
        yield (
            f"epochs of experts: {whole} asked for, {own} trained ({100 * own / whole:.0f} %), {whole - own} saved by"
            " what trials have in common"
        )
    for path in record.endless:
        yield f"{path} has values without end: hardly two trials agree in it, so they re-use little of their work"
    yield f"beside training and measuring: {overhead(record):.2f} s a trial"
    best = chosen(record)
    if best is None:
        yield "no trial came to its end"
        return
    for finalist in record.finalists:
        yield f"finalist, trial {finalist.number}: {told(finalist.validation)} against {finalist.attack}"
    yield f"best: trial {best.number}" + ("" if best.validation is None else f", {told(best.validation)}")
    yield from (f"  {path}: {value}" for path, value in best.params.items())
    if best.remix is not None and best.validation is not None:
        weights = ", ".join(f"{name} {weight:.2f}" for name, weight in best.remix.weights.items())
        yield f"  re-mixed with {weights}: {told(best.remix.validation)}"


def short(path: str) -> str:
    """Return a path without its section, which is known from the rest: `warm_up`, `natural.optimizer`."""
    return path.partition(".")[2] or path


def told(measured: Measured) -> str:
    """Return the accuracies with intervals and n."""
    return (
        f"natural {measured.natural}, robust {measured.robust}, harmonic mean {100 * measured.harmonic:.1f} %"
        f" (validation, n = {measured.natural.n})"
    )


def states(record: StudyRecord) -> dict[str, int]:
    """Return how many trials are in which state."""
    return dict(Counter(trial.state for trial in record.trials))


def asked(record: StudyRecord) -> int:
    """Return how many epochs of experts the trials went through."""
    return sum(trial.epochs_asked for trial in record.trials)


def trained(record: StudyRecord) -> int:
    """Return how many of them were trained."""
    return sum(trial.epochs_trained for trial in record.trials)


def overhead(record: StudyRecord) -> float:
    """Return seconds a trial beside training and measuring: the workers', and the processor's for what leads them."""
    ended = [trial.overhead for trial in record.trials if trial.seconds]
    return (sum(ended) + record.leading) / len(ended) if ended else 0.0


def chosen(record: StudyRecord) -> TrialRecord | None:
    """Return the best trial."""
    return next((trial for trial in record.trials if trial.number == record.best), None)
