"""What a search comes to: for people, and as JSON."""

from collections.abc import Iterator
from typing import Any

from generalist.records import Measured
from pipelines.trial_records import StudyRecord


def as_json(record: StudyRecord) -> dict[str, Any]:
    """Return the facts that `generalist tune --json` writes."""
    best = record.chosen
    return {
        "name": record.name,
        "trials": len(record.trials),
        "states": record.states,
        "epochs_asked": record.epochs_asked,
        "epochs_trained": record.epochs_trained,
        "seconds": record.seconds,
        "overhead_seconds_a_trial": record.overhead,
        "workers": record.workers,
        "best": None
        if best is None
        else {
            "number": best.number,
            "params": best.params,
            "values": dict(zip(record.objective, best.values, strict=False)),
        },
        "finalists": [finalist.model_dump(mode="json") for finalist in record.finalists],
    }


def lines(record: StudyRecord) -> Iterator[str]:
    """Yield the same facts for people."""
    counts = ", ".join(f"{count} {state}" for state, count in record.states.items())
    yield f"{len(record.trials)} trials ({counts}) in {record.seconds:.0f} s, workers: {record.workers}"
    whole, trained = record.epochs_asked, record.epochs_trained
    if whole:
        yield (
            f"epochs of experts: {whole} asked for, {trained} trained ({100 * trained / whole:.0f} %),"
            f" {whole - trained} saved by what trials have in common"
        )
    for path in record.endless:
        yield f"{path} has values without end: hardly two trials agree in it, so they re-use little of their work"
    yield f"beside training and measuring: {record.overhead:.2f} s a trial"
    best = record.chosen
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
