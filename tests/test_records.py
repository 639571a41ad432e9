"""Facts that travel: intervals of accuracies."""

from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import binomtest

from generalist.records import Accuracy, Evaluation, LearnerEvaluation, Measured, Protocol, ThreatEvaluation

COUNTS = st.integers(1, 100_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
PAIRS = (
    st.lists(st.integers(0, 100_000), min_size=2, max_size=3)
    .map(sorted)
    .map(lambda own: (own[0], own[1], own[-1] or 1))
)
"""Robust, natural, all."""


@given(COUNTS)
@example((0, 1))
@example((1, 1))
@example((0, 10_000))
@example((10_000, 10_000))
def test_the_interval_is_wilsons(counts: tuple[int, int]) -> None:
    """It agrees with scipy's, lies in [0, 1] and holds the share."""
    correct, n = counts
    accuracy = Accuracy(correct=correct, n=n)
    low, high = accuracy.interval
    assert (low, high) == pytest.approx(tuple(binomtest(correct, n).proportion_ci(method="wilson")), abs=1e-12)
    assert 0 <= low <= high <= 1
    assert low <= accuracy.value <= high


def test_of_no_images_everything_is_possible() -> None:
    """0 of 0 images leave the whole interval."""
    assert Accuracy(correct=0, n=0).interval == (0.0, 1.0)


@given(PAIRS)
@example((1, 1, 1))
@example((0, 0, 1))
def test_the_harmonic_mean_lies_between_both(counts: tuple[int, int, int]) -> None:
    """Of equal accuracies it is that accuracy, to the bit: of two ones it is one; it is 0 where one of them is."""
    robust, natural = (Accuracy(correct=correct, n=counts[-1]) for correct in counts[:2])
    values = [natural.value, robust.value]
    harmonic = Measured(natural=natural, robust=robust).harmonic
    assert isinstance(harmonic, float)
    assert min(values) <= harmonic <= max(values)
    assert (harmonic == 0) == (min(values) == 0)


@given(COUNTS, COUNTS)
@example((9, 10), (9, 10))
@example((9, 11), (9, 10))
def test_what_stands_against_attacks_is_some_of_what_is_right(
    robust: tuple[int, int], natural: tuple[int, int]
) -> None:
    """More than that, or of other images, is refused: on both splits, in each column, and for the worst of them."""
    own, before = (Accuracy(correct=correct, n=n) for correct, n in (robust, natural))
    sensible = robust[1] == natural[1] and robust[0] <= natural[0]
    none = Accuracy(correct=0, n=before.n)
    for make in (
        lambda: Measured(natural=before, robust=own),
        lambda: Measured(natural=before, robust=none, fgsm=own),
        lambda: evaluated(before, none, pgd=own),
        lambda: evaluated(before, none, pgd=none, cascade=own),
        lambda: evaluated(before, own, pgd=before, cascade=before),
    ):
        with nullcontext() if sensible else pytest.raises(ValueError, match="can't stand against more attacks"):
            make()


def evaluated(natural: Accuracy, worst: Accuracy, **columns: Accuracy) -> LearnerEvaluation:
    """Return a learner under one threat."""
    threat = ThreatEvaluation(threat="linf:0.15", columns=columns, worst=worst)
    return LearnerEvaluation(name="global", epoch=1, natural=natural, threats=(threat,), per_class={}, digest="")


@pytest.mark.parametrize(
    "wrong",
    [
        {"deployed": "nobody"},
        {"n": 99},
        {"threats": ("l2:1",)},
        {"name": "robust"},
        {"attacks": {"pgd": "PGD", "cascade": "standard"}},
    ],
)
def test_an_evaluation_is_of_its_protocol(wrong: dict[str, Any]) -> None:
    """Its learners, the deployed one among them, were measured on its images and under its threats."""
    hundred = Accuracy(correct=0, n=100)
    given = {"split": "test", "n": 100, "threats": ("linf:0.15",), "attacks": {"pgd": "PGD"}, "seed": 0}
    told = {
        "protocol": {**given, "test_digest": "", "validation": ""} | {k: v for k, v in wrong.items() if k in given},
        "deployed": wrong.get("deployed", "global"),
        "chosen": {
            "round": 0,
            "epoch": 1,
            "weights": {},
            "handed_back": False,
            "validation": {"natural": hundred.model_dump(), "robust": hundred.model_dump()},
            "digest": "",
        },
        "criterion": "harmonic",
        "learners": {wrong.get("name", "global"): evaluated(hundred, hundred, pgd=hundred).model_dump()},
        "numerics": {},
        "seconds": 1,
    }
    with pytest.raises(
        ValueError, match=r"is not among those evaluated|was not evaluated by the protocol|lacks attacks"
    ):
        Evaluation.model_validate(told)


@given(pgd=st.integers(0, 9), cascade=st.integers(0, 9), strongest=st.none() | st.integers(0, 9))
def test_a_record_of_three_columns_is_read(pgd: int, cascade: int, strongest: int | None) -> None:
    """As those before 2026-11-28 are, in results, registries and ONNX files; written anew, it is as others are."""
    told = {"pgd": pgd, "cascade": cascade, "strongest": strongest}
    accuracies = {name: {"correct": count, "n": 9} for name, count in told.items() if count is not None}
    found = ThreatEvaluation.model_validate({"threat": "linf:0.15", "strongest": None, **accuracies})
    assert {name: own.correct for name, own in found.columns.items()} == {
        k: v for k, v in told.items() if v is not None
    }
    assert found.worst.correct == min(own.correct for own in found.columns.values())
    assert ThreatEvaluation.model_validate_json(found.model_dump_json()) == found
    facts = {"split": "test", "n": 9, "threats": ["linf:0.15"], "seed": 0, "test_digest": "", "validation": ""}
    protocol = Protocol.model_validate({**facts, "pgd": "pgd, 50 steps", "cascade": "standard, 9 queries"})
    assert [protocol.title(name) for name in accuracies] == ["pgd", "standard", "strongest"][: len(accuracies)]
    assert protocol.title("raw/cascade") == "standard through raw"
