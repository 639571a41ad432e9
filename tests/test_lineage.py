"""What an exported file says of its origin."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generalist.errors import BadInput
from generalist.export import Lineage, evaluation_digest
from generalist.records import (
    Accuracy,
    Evaluation,
    LearnerEvaluation,
    Measured,
    Protocol,
    RoundRecord,
    ThreatEvaluation,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
ACCURACIES = st.integers(1, 1000).flatmap(
    lambda n: st.builds(Accuracy, correct=st.integers(0, n), n=st.just(n)),
)
THREATS = st.builds(
    ThreatEvaluation,
    threat=TEXT,
    columns=st.dictionaries(TEXT.filter(bool), ACCURACIES, min_size=1, max_size=3),
    worst=ACCURACIES,
    flags=st.lists(TEXT, max_size=2).map(tuple),
)
LINEAGES = st.builds(
    Lineage,
    learner=TEXT,
    model=TEXT,
    class_names=st.lists(TEXT, max_size=3).map(tuple),
    natural=ACCURACIES,
    threats=st.lists(THREATS, max_size=2).map(tuple),
    protocol_digest=TEXT,
    data_digest=TEXT,
    params_digest=TEXT,
    weights_digest=TEXT,
    evaluation_digest=TEXT,
    git_commit=st.none() | TEXT,
    dirty=st.none() | st.booleans(),
)


def evaluation(**changes: Any) -> Evaluation:
    """Return an evaluation of two learners, of which the global one is deployed."""
    half = Measured(natural=Accuracy(correct=3, n=4), robust=Accuracy(correct=2, n=4))
    threat = ThreatEvaluation(
        threat="linf:8/255", columns={"pgd": half.robust}, worst=half.robust, flags=("zero-grad",)
    )

    def learner(name: str) -> LearnerEvaluation:
        return LearnerEvaluation(
            name=name, epoch=2, natural=half.natural, threats=(threat,), per_class={}, digest=f"weights of {name}"
        )

    protocol = Protocol(
        split="test", n=4, threats=("linf:8/255",), attacks={"pgd": "p"}, seed=0, test_digest="t", validation="v"
    )
    chosen = RoundRecord(round=0, epoch=2, weights={}, handed_back=False, validation=half, digest="d")
    values: dict[str, Any] = {
        "protocol": protocol,
        "deployed": "global",
        "chosen": chosen,
        "criterion": "harmonic",
        "learners": {"natural": learner("natural"), "global": learner("global")},
        "numerics": {"threads": 1},
        "seconds": 1.0,
    }
    return Evaluation(**(values | changes))


@given(lineage=LINEAGES)
def test_a_lineage_survives_as_metadata(lineage: Lineage) -> None:
    """Written as strings and read back, it is the same; what is unknown is not written."""
    metadata = lineage.to_metadata()
    assert all(isinstance(value, str) for value in metadata.values())
    assert Lineage.from_metadata({**metadata, "graph_digest": "0"}) == lineage
    assert ("git_commit" in metadata) == (lineage.git_commit is not None)


def test_accuracies_are_written_with_n_and_interval() -> None:
    """A number travels with what it takes to judge it, and class names are a JSON list."""
    lineage = Lineage.of(
        evaluation(),
        model="small_cnn",
        class_names=("cat", "dög"),
        data_digest="data",
        params_digest="params",
        git_commit="abc",
        dirty=True,
    )
    metadata = lineage.to_metadata()
    natural, (threat,) = json.loads(metadata["natural"]), json.loads(metadata["threats"])
    assert (natural["correct"], natural["n"], natural["value"]) == (3, 4, 0.75)
    assert natural["interval"] == list(Accuracy(correct=3, n=4).interval)
    assert (threat["threat"], threat["flags"], threat["worst"]["value"]) == ("linf:8/255", ["zero-grad"], 0.5)
    assert metadata["class_names"] == '["cat","dög"]'
    assert (metadata["learner"], metadata["weights_digest"]) == ("global", "weights of global")
    assert (metadata["git_commit"], metadata["dirty"]) == ("abc", "true")
    assert metadata["evaluation_digest"] == evaluation_digest(evaluation())
    assert metadata["protocol_digest"] == evaluation().protocol.digest()


def test_the_digest_of_an_evaluation_is_of_what_was_measured() -> None:
    """It is the same for a slower run, also after reading from JSON, and another for any other difference."""
    digest = evaluation_digest(evaluation())
    assert evaluation_digest(evaluation(seconds=99.0)) == digest
    assert evaluation_digest(Evaluation.model_validate_json(evaluation().model_dump_json())) == digest
    assert evaluation_digest(evaluation(criterion="natural")) != digest
    assert evaluation_digest(evaluation(numerics={"threads": 2})) != digest


@pytest.mark.parametrize("change", [{}, {"natural": "no json"}, {"natural": "[]"}, {"dirty": '"perhaps"'}])
def test_damaged_metadata_is_refused(change: dict[str, str]) -> None:
    """A key that is missing, or no lineage's, is one sentence."""
    metadata = Lineage.of(
        evaluation(), model="m", class_names=(), data_digest="d", params_digest="p", git_commit=None, dirty=None
    ).to_metadata()
    metadata = {**metadata, **change} if change else {"class_names": "[]"}
    with pytest.raises(BadInput, match="the model's metadata is not a lineage of ours, which has: learner, model"):
        Lineage.from_metadata(metadata)
