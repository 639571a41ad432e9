"""Several threats at once: the union, image by image, in evaluations, choices, gates and what is shown of them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from generalist import engine
from generalist.config import Config
from generalist.data import Dataset
from generalist.errors import BadInput
from generalist.evaluation import Shard, Verdicts, combine_shards, evaluate, measure, protocol
from generalist.evaluation.accuracy import attacked
from generalist.models import Classifier
from generalist.records import Accuracy, Evaluation, LearnerEvaluation, Measured, RoundRecord
from generalist.report import build
from generalist.threats import threat_from
from generalist.training import Outcome
from pipelines.registry.gates import Evidence
from pipelines.results import Results, accuracy_rows, metrics_json, verdicts_npz
from pipelines.tracking import run_metadata
from tests import report_factory
from tests.training_factory import first, small

TWO = "evaluation.threats=[{norm: l2, eps: 0.4}, {norm: linf, eps: 0.05}]"
UNION = "evaluation.headline=union"
N = 60

pytestmark = pytest.mark.usefixtures("short_gradients")


@pytest.fixture(scope="module")
def model(dataset: Dataset, outcome: Outcome) -> Classifier:
    """A classifier that is right on most images."""
    return engine.model_with(small().model, dataset.shape, outcome.learners["natural"], on=torch.device("cpu"))


@pytest.fixture
def verdicts(dataset: Dataset) -> Verdicts:
    """Made up: each column of each threat is right on another part of the images; the union is the headline."""
    labels = dataset.test.labels[:N]
    arrays: dict[str, np.ndarray] = {"label": labels, "prediction": np.where(np.arange(N) < 55, labels, labels + 1)}
    for threat, start in (("l2:0.4", 0), ("linf:0.05", 15)):
        arrays[f"{threat}/pgd"] = (np.arange(N) >= start) & (np.arange(N) < start + 30)
        arrays[f"{threat}/cascade"] = arrays[f"{threat}/pgd"] & (np.arange(N) % 5 != 0)
    columns = dict.fromkeys(("l2:0.4", "linf:0.05"), ("pgd", "cascade"))
    shard = Shard(arrays, columns, {"l2:0.4": {}, "linf:0.05": {}}, np.zeros((N, 1, 8, 8), np.float32))
    options = small(TWO, UNION).evaluation
    return combine_shards([shard], options=options, class_names=dataset.class_names, name="global", epoch=5, digest="d")


def evaluation(verdicts: Verdicts, dataset: Dataset, config: Config) -> Evaluation:
    """Return the record of these verdicts."""
    half = Measured(natural=Accuracy(correct=9, n=10), robust=Accuracy(correct=5, n=10))
    return Evaluation(
        protocol=protocol(config, dataset).model_copy(update={"n": N}),
        deployed="global",
        chosen=RoundRecord(round=0, epoch=5, weights={}, handed_back=False, validation=half, digest="d"),
        criterion="harmonic",
        learners={"global": verdicts.evaluation},
        numerics={},
        seconds=1.0,
    )


def stands(verdicts: Verdicts) -> np.ndarray:
    """Return which images stand in every column of every threat."""
    held = [array for name, array in verdicts.arrays.items() if name.rpartition("/")[2] in ("pgd", "cascade")]
    assert len(held) == 4
    return np.logical_and.reduce(held)


def test_an_image_is_robust_to_a_union_that_stands_in_every_threat(verdicts: Verdicts) -> None:
    """Image by image: less than the least of the threats where they break different images."""
    found = verdicts.evaluation
    assert found.union is not None and found.union.correct == stands(verdicts).sum()
    assert found.union.correct == 12 < min(threat.worst.correct for threat in found.threats) == 24
    assert sum(of_class.robust.correct for of_class in found.per_class.values()) == found.union.correct


def test_one_threat_has_no_union_and_the_first_is_the_headline_unless_said(model: Classifier, dataset: Dataset) -> None:
    """The union of two is told all the same."""
    split, names = first(dataset.test, 20), dataset.class_names
    one, two = small().evaluation, small(TWO).evaluation
    alone = evaluate(model, split, options=one, class_names=names, name="it", epoch=5, digest="d").evaluation
    both = evaluate(model, split, options=two, class_names=names, name="it", epoch=5, digest="d").evaluation
    assert alone.union is None and both.union is not None
    assert sum(of_class.robust.correct for of_class in both.per_class.values()) == both.threats[0].worst.correct


def test_a_union_of_one_is_refused() -> None:
    """With the two ways to mend it."""
    with pytest.raises(BadInput, match=r"headline is union, but evaluation\.threats has one alone: add another, or"):
        small(UNION)
    with pytest.raises(BadInput, match=r"evaluation\.pgd\.step_size is one for all norms of the union"):
        small(TWO, UNION, "evaluation.pgd.step_size=2/255")


def test_choices_on_the_validation_split_go_by_the_union(model: Classifier, dataset: Dataset) -> None:
    """Image by image, under the attack of the choice."""
    options = small(TWO, UNION).evaluation

    flags = [
        attacked(model, dataset.validation, threat, options.selection_attack, seed=0)[1] for threat in options.threats
    ]
    found = measure(model, dataset.validation, threats=options.threats, attack=options.selection_attack, fgsm=True)
    assert found.robust.correct == np.logical_and(*flags).sum() > 0
    assert found.fgsm is not None and found.fgsm.correct >= found.robust.correct
    assert options.headline_threats == options.threats and small(TWO).evaluation.headline_threats == options.threats[:1]


def test_protocols_differ_by_the_headline_and_older_ones_keep_their_digest(dataset: Dataset) -> None:
    """So that a champion by one threat is not compared with a candidate by the union."""
    first_, union = protocol(small(TWO), dataset), protocol(small(TWO, UNION), dataset)
    assert first_.digest() != union.digest() and union.headline_threats == ("l2:0.4", "linf:0.05")
    written = first_.model_dump(mode="json")
    del written["union"]
    assert type(first_).model_validate(written) == first_
    assert "l2:0.4 and linf:0.05" in union.validation and "linf" not in first_.validation


def test_gates_compare_the_union_where_it_is_the_headline(verdicts: Verdicts, dataset: Dataset, tmp_path: Path) -> None:
    """Evidence is image by image what the headline says; a union that the verdicts don't have is refused."""
    results = Results(tmp_path)
    results.verdicts.write_bytes(verdicts_npz(verdicts.arrays))
    for config, expected in (
        (small(TWO, UNION), stands(verdicts)),
        (small(TWO), np.logical_and(*(verdicts.arrays[f"global/l2:0.4/{name}"] for name in ("pgd", "cascade")))),
    ):
        record = evaluation(verdicts, dataset, config)
        results.evaluation.write_text(record.model_dump_json())
        np.testing.assert_array_equal(Evidence.read(results).robust, expected)
        assert record.robust(record.headline).correct == expected.sum()
    less = {"union": Accuracy(correct=0, n=N)}
    learners = {"global": verdicts.evaluation.model_copy(update=less)}
    results.evaluation.write_text(record.model_copy(update={"learners": learners}).model_dump_json())
    with pytest.raises(BadInput, match="is not of the evaluation beside it"):
        Evidence.read(results)


def test_a_union_above_one_of_its_threats_is_no_record(verdicts: Verdicts) -> None:
    """An attack wins nothing."""
    written = verdicts.evaluation.model_dump()
    with pytest.raises(ValueError, match="can't stand against more attacks"):
        LearnerEvaluation.model_validate(written | {"union": written["natural"]})


def test_the_union_is_shown_wherever_accuracies_are(verdicts: Verdicts, dataset: Dataset) -> None:
    """Tables, metrics, MLflow's sentence and the report, which leads with it where it is the headline."""
    record, union = evaluation(verdicts, dataset, small(TWO, UNION)), verdicts.evaluation.union
    assert union is not None
    (row,) = accuracy_rows(record)
    assert row["union of threats"] == str(union)
    assert f'"union": {union.value}' in metrics_json(record).decode()
    assert run_metadata.of_learner(record.headline, record.protocol)["test/global/union"] == union.value
    assert run_metadata.of_choice(record)["test/robust_quick"] == union.value
    assert f"their union {union}" in run_metadata.summary(record)
    page = build(
        report_factory.history(report_factory.config()),
        record,
        report_factory.gallery(report_factory.config()),
        config=small(TWO, UNION),
        commands={},
        lineage={},
    )
    words = "union of L2\xa00.4 and L∞\xa00.05"
    assert f"Robust accuracy, {words}" in page and f"Test: {words}" in page
    assert page.count('rowspan="2">Union</th>') == 1
    led_by_one = build(
        report_factory.history(report_factory.config()),
        evaluation(verdicts, dataset, small(TWO)),
        report_factory.gallery(report_factory.config()),
        config=small(TWO),
        commands={},
        lineage={},
    )
    assert "Robust accuracy, L2\xa00.4" in led_by_one and "Robust accuracy, union of all threats" in led_by_one


def test_threats_are_named_as_the_protocol_has_them() -> None:
    """The union is of all of them."""
    options = small(TWO, UNION).evaluation
    assert [str(threat_from(threat)) for threat in options.headline_threats] == ["l2:0.4", "linf:0.05"]
