"""What is told to MLflow: names, parameters, metrics and tags, as plain values. No MLflow here."""

import re
from collections.abc import Iterator, Mapping

from generalist.config import Config, Steps, flatten, params_digest
from generalist.records import (
    EpochRecord,
    Evaluation,
    GlobalRecord,
    LearnerEvaluation,
    Measured,
    Protocol,
    RoundRecord,
)
from pipelines.workspace import CodeVersion

LONGEST_PARAM = 6000  # characters; MLflow's limit
LONGEST_TAG = 8000
WEIGHTS_SHA256 = "weights_sha256"
"""Tag of a run: SHA-256 (hex) of the deployed learner's weights, in whichever file they are."""
Fact = EpochRecord | GlobalRecord | RoundRecord


def run_name(config: Config) -> str:
    """Return a name for people, such as `digits · natural + robust · t'=25 c=2 · seed 0`."""
    if config.mixing is None:
        schedule = f"{config.training.epochs} epochs"
    else:
        every = config.mixing.interval
        interval = f"{every.steps} steps" if isinstance(every, Steps) else str(every)
        schedule = f"t'={config.mixing.warm_up} c={interval}{' burst' if config.mixing.burst else ''}"
    return " · ".join([config.data.name, " + ".join(config.experts), schedule, f"seed {config.seed}"])


def params(config: Config) -> dict[str, str]:
    """Return every option by its dotted path, no longer than MLflow takes."""
    return {path: _cut(value, LONGEST_PARAM) for path, value in flatten(config).items()}


def origin(config: Config, *, data_digest: str, code: CodeVersion) -> dict[str, str]:
    """Return tags that say what a run was made from; what is not known is left out."""
    known = {
        "params_digest": params_digest(config),
        "data_digest": data_digest,
        "git_commit": code.commit,
        "mlflow.source.git.commit": code.commit,  # MLflow has a column for it
        "git_dirty": None if code.dirty is None else str(code.dirty).lower(),
    }
    return {key: value for key, value in known.items() if value is not None}


def outcome(evaluation: Evaluation) -> dict[str, str]:
    """Return tags that say what came of a run."""
    return {
        WEIGHTS_SHA256: evaluation.headline.digest,
        "protocol_digest": evaluation.protocol.digest(),
        "mlflow.note.content": summary(evaluation),  # MLflow shows it on the run's page
    }


def summary(evaluation: Evaluation) -> str:
    """Return one sentence on the deployed learner, every number with its interval and n."""
    learner, chosen = evaluation.headline, evaluation.chosen.validation
    accuracies = [f"{threat.threat} {threat.worst}" for threat in learner.threats]
    robust = "; ".join(accuracies if learner.union is None else [*accuracies, f"their union {learner.union}"])
    return _cut(
        f"Learner {learner.name} after {learner.epoch} epochs, on {learner.natural.n} images of the"
        f" {evaluation.protocol.split} split: natural {learner.natural}; {evaluation.protocol.headline}: {robust}."
        f" Chosen on the validation split by {evaluation.criterion} = {chosen.by(evaluation.criterion):.4f}.",
        LONGEST_TAG,
    )


def metrics(fact: Fact, *, deployed: str) -> dict[str, float]:
    """Return the numbers of one fact by name; `deployed` is the name of the learner that rounds are about."""
    match fact:
        case EpochRecord():
            return _epoch_metrics(fact)
        case GlobalRecord():
            return dict(_validation("global", fact.validation))
        case RoundRecord():
            weights = {f"mixing/weight_{expert}": weight for expert, weight in fact.weights.items()}
            return {**weights, "mixing/round": fact.round, **dict(_validation(deployed, fact.validation))}


def of_learner(learner: LearnerEvaluation, protocol: Protocol) -> dict[str, float]:
    """Return the final accuracies of one learner."""
    values = {f"test/{learner.name}/natural": learner.natural.value}
    for threat in learner.threats:
        # MLflow groups by slash: that of `linf:8/255` would tear the threat apart.
        place = f"test/{learner.name}/{threat.threat.replace('/', '_')}"
        # Titles, not names of columns: accuracies by two cascades don't compare.
        values |= {
            f"{place}/{_metric(protocol.title(name))}": accuracy.value for name, accuracy in threat.columns.items()
        }
        values[f"{place}/worst"] = threat.worst.value
    return values if learner.union is None else {**values, f"test/{learner.name}/union": learner.union.value}


def of_choice(evaluation: Evaluation) -> dict[str, float]:
    """Return the numbers by which runs compare, under the same names whatever is deployed."""
    learner, chosen = evaluation.headline, evaluation.chosen
    return {
        "test/natural": learner.natural.value,
        f"test/robust_{_metric(evaluation.protocol.title('cascade'))}": evaluation.robust(learner).value,
        "chosen/epoch": chosen.epoch,
        **dict(_validation("chosen", chosen.validation)),
    }


def _metric(title: str) -> str:
    """Return a title in the letters that MLflow takes in names of metrics."""
    return re.sub(r"[^\w.-]+", "_", title.lower()).strip("_")


def _epoch_metrics(record: EpochRecord) -> dict[str, float]:
    values = {
        "loss": record.loss,
        "train_accuracy": record.accuracy,
        "gradient_norm": record.gradient_norm,
        "learning_rate": record.learning_rate,
        "images_per_second": record.images / record.seconds if record.seconds > 0 else 0.0,
        "seconds": record.seconds,
    }
    validation = {} if record.validation is None else dict(_validation(record.expert, record.validation))
    return {**{f"{record.expert}/{name}": value for name, value in values.items()}, **validation}


def _validation(name: str, measured: Measured) -> Iterator[tuple[str, float]]:
    yield f"{name}/validation_natural", measured.natural.value
    yield f"{name}/validation_robust", measured.robust.value
    if measured.fgsm is not None:
        yield f"{name}/validation_fgsm", measured.fgsm.value
    yield f"{name}/validation_harmonic", measured.harmonic


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def tags_of(given: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of a caller, no longer than MLflow takes."""
    return {key: _cut(value, LONGEST_TAG) for key, value in given.items()}
