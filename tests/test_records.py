"""Facts that travel: intervals of accuracies."""

from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import binomtest

from generalist.records import Accuracy, Evaluation, LearnerEvaluation, Measured, ThreatEvaluation

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
    """More than that, or of other images, is refused: on both splits, and for a stronger attack after the cascade."""
    own, before = (Accuracy(correct=correct, n=n) for correct, n in (robust, natural))
    sensible = robust[1] == natural[1] and robust[0] <= natural[0]
    none = Accuracy(correct=0, n=before.n)
    for make in (
        lambda: Measured(natural=before, robust=own),
        lambda: Measured(natural=before, robust=none, fgsm=own),
        lambda: evaluated(before, own, none),
        lambda: evaluated(before, none, own),
        lambda: evaluated(before, before, before, strongest=own),
    ):
        with nullcontext() if sensible else pytest.raises(ValueError, match="can't stand against more attacks"):
            make()


def evaluated(natural: Accuracy, pgd: Accuracy, cascade: Accuracy, **more: Accuracy) -> LearnerEvaluation:
    """Return a learner under one threat."""
    threat = ThreatEvaluation(threat="linf:0.15", pgd=pgd, cascade=cascade, **more)
    return LearnerEvaluation(name="global", epoch=1, natural=natural, threats=(threat,), per_class={}, digest="")


@pytest.mark.parametrize("wrong", [{"deployed": "nobody"}, {"n": 99}, {"threats": ("l2:1",)}, {"name": "robust"}])
def test_an_evaluation_is_of_its_protocol(wrong: dict[str, Any]) -> None:
    """Its learners, the deployed one among them, were measured on its images and under its threats."""
    hundred = Accuracy(correct=0, n=100)
    given = {"split": "test", "n": 100, "threats": ("linf:0.15",), "pgd": "", "cascade": "", "seed": 0}
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
        "learners": {wrong.get("name", "global"): evaluated(hundred, hundred, hundred).model_dump()},
        "numerics": {},
        "seconds": 1,
    }
    with pytest.raises(ValueError, match=r"is not among those evaluated|was not evaluated by the protocol"):
        Evaluation.model_validate(told)
