"""What stands between a model and the alias `champion`: a gate says why it stays shut, or nothing. No MLflow here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from generalist.data.array_files import UnreadableArray, read_npz
from generalist.errors import BadInput
from generalist.records import Evaluation, LearnerEvaluation, ThreatEvaluation
from generalist.significance import mcnemar
from pipelines.results import Results

if TYPE_CHECKING:
    from generalist.export import Parity

Criterion = Literal["harmonic", "natural", "robust"]
Flags = NDArray[np.bool_]
Classes = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Evidence:
    """What is known of a model's deployed learner.

    Attributes:
        evaluation: the accuracies.
        labels: int [n], of the test images.
        predictions: int [n], of the learner on these images as they are.
        robust: bool [n], which stand in every column under the headline's threats.
    """

    evaluation: Evaluation
    labels: Classes
    predictions: Classes
    robust: Flags

    @property
    def natural(self) -> Flags:
        """bool [n], which test images are classified correctly."""
        return np.asarray(self.predictions == self.labels)

    @classmethod
    def read(cls, results: Results) -> "Evidence":
        """Return the evidence in a folder of results.

        Raises:
            BadInput: a file is missing or damaged, the verdicts are not those of the evaluation, or they contradict
                each other.
        """
        evaluation = results.read_evaluation()
        learner, headline = evaluation.headline, evaluation.protocol.headline_threats
        try:
            arrays = _verdicts(results, evaluation)
        except (FileNotFoundError, UnreadableArray):
            raise BadInput(f"{results.verdicts} is missing or damaged: make it with `dvc repro`") from None
        for one in evaluation.learners.values():
            if not _agree(one, arrays):
                raise BadInput(f"{results.verdicts} is not of the evaluation beside it: make both with `dvc repro`")
        threats = [threat for threat in learner.threats if threat.threat in headline]
        robust = np.logical_and.reduce([arrays[name] for threat in threats for name in _columns(learner.name, threat)])
        return cls(evaluation, arrays["label"], arrays[f"{learner.name}/prediction"], robust)


def _verdicts(results: Results, evaluation: Evaluation) -> dict[str, NDArray[Any]]:
    """Return the arrays of all learners."""
    learners = evaluation.learners.values()
    said = [f"{learner.name}/prediction" for learner in learners]
    held = [name for learner in learners for threat in learner.threats for name in _columns(learner.name, threat)]
    return read_npz(results.verdicts, ("label", *said, *held))


def _columns(learner: str, threat: ThreatEvaluation) -> list[str]:
    """Return where the verdicts of a learner's columns are."""
    return [f"{learner}/{threat.threat}/{column}" for column in threat.columns]


def _agree(learner: LearnerEvaluation, arrays: Mapping[str, NDArray[Any]]) -> bool:
    """Return whether verdicts have the accuracies that an evaluation tells, and no mistake is robust."""
    labels, said, n = arrays["label"], arrays[f"{learner.name}/prediction"], learner.natural.n
    if any(array.shape != (n,) or array.dtype.kind not in "iu" or array.min(initial=0) < 0 for array in (labels, said)):
        return False
    natural = said == labels
    if natural.sum() != learner.natural.correct:
        return False
    union = natural
    for threat in learner.threats:
        worst = natural
        for name, accuracy in zip(_columns(learner.name, threat), threat.columns.values(), strict=True):
            held = arrays[name]
            if (
                held.shape != (n,)
                or held.dtype != np.bool_
                or (held & ~natural).any()
                or held.sum() != accuracy.correct
            ):
                return False
            worst = worst & held
        # Older records tell no worst, so theirs is the least of the columns, which is the most that it can be.
        if threat.worst.correct not in (worst.sum(), min(accuracy.correct for accuracy in threat.columns.values())):
            return False
        union = union & worst
    return learner.union is None or learner.union.correct == int(union.sum())


def parity(found: "Parity") -> str | None:
    """Require that the ONNX file says what the classifier says."""
    for width, other in found.widths.items():
        if reason := parity(other):
            return f"{reason}, at width {width}"
    if found.passed:
        return None
    return (
        f"the ONNX file disagrees with torch on {found.disagreements} of {found.n} images"
        f" (largest difference of a logit: {found.max_difference:.2g})"
    )


def doubt(candidate: Evaluation) -> str | None:
    """Require that nothing makes its robust accuracy doubtful."""
    return f"its robust accuracy is doubtful ({'; '.join(candidate.flags)})" if candidate.flags else None


def same_protocol(candidate: Evaluation, champion: Evaluation) -> str | None:
    """Require that it was measured alike, on the same data: only that compares."""
    candidate_fields, champion_fields = candidate.protocol.model_dump(), champion.protocol.model_dump()
    differing = [name for name, value in candidate_fields.items() if value != champion_fields[name]]
    return f"the champion was evaluated by another protocol ({', '.join(differing)})" if differing else None


def better(candidate: Evaluation, champion: Evaluation, *, by: Criterion) -> str | None:
    """Require that the candidate is better by the declared criterion on the validation split."""
    candidate_value, champion_value = candidate.chosen.validation.by(by), champion.chosen.validation.by(by)
    if candidate_value > champion_value:
        return None
    return (
        f"on the validation split its {by} value {candidate_value:.4f} is not above the champion's {champion_value:.4f}"
    )


def not_worse(what: str, candidate: Flags, champion: Flags, *, level: float) -> str | None:
    """Require that the candidate is not significantly worse on the test split, image by image.

    Args:
        what: which accuracy the verdicts are of, for the reason.
        candidate: bool [n], which test images it gets right.
        champion: bool [n], the same of the champion, on the same images.
        level: of the test.
    """
    lost, won = int((champion & ~candidate).sum()), int((candidate & ~champion).sum())
    probability = mcnemar(lost, won)
    if probability >= level:
        return None
    return (
        f"its {what} accuracy on the test split is significantly worse than the champion's"
        f" ({lost} images lost, {won} won, p = {probability:.2g} in McNemar's test at level {level:g})"
    )


def alone(candidate: Evaluation, found: "Parity") -> tuple[str, ...]:
    """Return the reasons against a model on its own."""
    return tuple(reason for reason in (parity(found), doubt(candidate)) if reason)


def against(champion: Evidence, candidate: Evidence, *, by: Criterion, level: float) -> tuple[str, ...]:
    """Return the reasons against a model where there is a champion."""
    protocols = same_protocol(candidate.evaluation, champion.evaluation)
    if protocols:  # nothing else can be compared then
        return (protocols,)
    verdicts = (
        better(candidate.evaluation, champion.evaluation, by=by),
        not_worse("natural", candidate.natural, champion.natural, level=level),
        not_worse("robust", candidate.robust, champion.robust, level=level),
    )
    return tuple(reason for reason in verdicts if reason)
