"""What an exported file says of its origin: enough to find, and to doubt, every number about it."""

import json
from collections.abc import Mapping
from typing import Any, Self

from pydantic import ValidationError

from generalist.config import digest
from generalist.errors import BadInput
from generalist.records import Accuracy, Evaluation, Record, ThreatEvaluation


class Lineage(Record):
    """The metadata of an exported model. Nothing in it changes from run to run: no run ids, no times.

    Attributes:
        learner: which learner it is: `global`, or an expert's name.
        model: the architecture's name.
        class_names: by class index.
        natural: accuracy on clean test images, with n and interval.
        threats: robust accuracies by threat, each with n and interval, and what makes them doubtful.
        union: accuracy on images that stand in all threats; None where there is one alone.
        protocol_digest: of the evaluation's protocol: numbers compare if it agrees.
        data_digest: of the prepared data.
        params_digest: of the configuration.
        weights_digest: of the weights in training precision.
        evaluation_digest: of all that was measured, see `evaluation_digest`.
        condition: lambda at which the accuracies are, and at which it predicts by default; None for a model that takes
            none.
        width: share of the channels of a slimmable network that the file has; None for one of one width.
        git_commit: of the code; None outside a repository.
        dirty: whether the code differed from that commit; None outside a repository.
    """

    learner: str
    model: str
    class_names: tuple[str, ...]
    natural: Accuracy
    threats: tuple[ThreatEvaluation, ...]
    union: Accuracy | None = None
    protocol_digest: str
    data_digest: str
    params_digest: str
    weights_digest: str
    evaluation_digest: str
    condition: float | None = None
    width: float | None = None
    git_commit: str | None = None
    dirty: bool | None = None

    @classmethod
    def of(
        cls,
        evaluation: Evaluation,
        *,
        name: str | None = None,
        model: str,
        class_names: tuple[str, ...],
        data_digest: str,
        params_digest: str,
        git_commit: str | None,
        dirty: bool | None,
    ) -> Self:
        """Return the lineage of a learner of an evaluation, by default the deployed one."""
        learner = evaluation.learners[name or evaluation.deployed]
        return cls(
            learner=learner.name,
            model=model,
            class_names=class_names,
            natural=learner.natural,
            threats=learner.threats,
            union=learner.union,
            protocol_digest=evaluation.protocol.digest(),
            data_digest=data_digest,
            params_digest=params_digest,
            weights_digest=learner.digest,
            evaluation_digest=evaluation_digest(evaluation),
            condition=learner.condition,
            width=learner.width,
            git_commit=git_commit,
            dirty=dirty,
        )

    def to_metadata(self) -> dict[str, str]:
        """Return strings for the ONNX file: text as it is, everything else as JSON; what is None is left out."""
        values = self.model_dump(mode="json", exclude_none=True)
        return {key: value if isinstance(value, str) else _json(value) for key, value in values.items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Self:
        """Read back what `to_metadata` wrote; other keys are ignored.

        Raises:
            BadInput: a key is missing or damaged.
        """
        try:
            values = {key: _value(key, metadata[key]) for key in cls.model_fields if key in metadata}
            return cls.model_validate(values)
        except (json.JSONDecodeError, ValidationError):
            keys = ", ".join(cls.model_fields)
            raise BadInput(
                f"the model's metadata is not a lineage of ours, which has: {keys}; export it again"
            ) from None


def evaluation_digest(evaluation: Evaluation) -> str:
    """Return the SHA-256 (hex) of an evaluation without its duration, which differs from run to run."""
    return digest(evaluation.model_dump(mode="json", exclude={"seconds"}))


_STRUCTURED = {"class_names", "natural", "threats", "union", "condition", "width", "dirty"}


def _value(key: str, text: str) -> Any:
    return json.loads(text) if key in _STRUCTURED else text


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
