"""Means, intervals, differences, the front and the curves of a comparison."""

import csv
import datetime
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generalist.comparison import (
    HARMONIC,
    NATURAL,
    ROBUST,
    WORST_CLASS,
    ComparedTraining,
    Comparison,
    Published,
)
from generalist.records import Accuracy, LearnerEvaluation, Measured, Protocol, ThreatEvaluation
from generalist.report.frontier import build
from generalist.significance import mean_interval

N = 1000
PROTOCOL = Protocol(
    split="test", n=N, threats=("linf:0.15",), attacks={"pgd": "PGD, 50 steps", "cascade": "quick, seed 0"},
    seed=0, test_digest="", validation="",
)  # fmt: skip


def learner(natural: int, robust: int, condition: float | None = None) -> LearnerEvaluation:
    """Return a learner with so many of a thousand images right, clean and attacked."""
    clean, worst = Accuracy(correct=natural, n=N), Accuracy(correct=robust, n=N)
    columns = {"pgd": worst, "cascade": worst}
    return LearnerEvaluation(
        name="robust", epoch=1, natural=clean, digest="0" * 64, condition=condition,
        threats=(ThreatEvaluation(threat="linf:0.15", columns=columns, worst=worst),),
        per_class={"zero": Measured(natural=clean, robust=worst), "one": Measured(natural=clean, robust=Accuracy(correct=0, n=N))},
    )  # fmt: skip


def trained(title: str, seed: int, *learners: LearnerEvaluation, curve: str | None = None) -> ComparedTraining:
    """Return a training that came to these."""
    return ComparedTraining(
        title=title, curve=curve, seed=seed, epochs=3, command=f"generalist train -S seed={seed}", passes=1000.0,
        training_seconds=2.0, evaluation_seconds=1.0, memory=10**8, learners=learners, protocol=PROTOCOL,
        date=datetime.date(2026, 11, 29), machine="a machine", commit="c" * 40,
    )  # fmt: skip


def comparison(*trainings: ComparedTraining, reference: str = "A") -> Comparison:
    """Return a finished comparison of these."""
    return Comparison(name="x", command="generalist compare", reference=reference, budget=None, trainings=trainings)


points = st.tuples(st.integers(1, N), st.integers(0, N)).map(lambda pair: (pair[0], min(pair)))


def test_an_interval_is_student_s() -> None:
    """Of three values with a standard deviation of 1: 4.303 / sqrt(3) either way; of one, nothing is known."""
    mean, low, high = mean_interval([1.0, 2.0, 3.0])
    assert (mean, high - mean) == (2.0, pytest.approx(2.4841, abs=1e-4)) and mean - low == pytest.approx(high - mean)
    assert mean_interval([5.0]) == (5.0, float("-inf"), float("inf"))


def test_differences_are_paired_by_seed() -> None:
    """Two rows that move together differ for certain, however far their seeds lie apart."""
    found = comparison(
        *(trained("A", seed, learner(900, 300 + 100 * seed)) for seed in range(3)),
        *(trained("B", seed, learner(900, 310 + 100 * seed)) for seed in range(3)),
    )
    first, second = found.rows()
    assert second.less(first, ROBUST) == pytest.approx((1.0, 1.0, 1.0))
    assert first.spread(ROBUST).high - first.spread(ROBUST).low > 20
    assert second.less(comparison(trained("A", 7, learner(900, 300))).rows()[0], ROBUST) is None


@given(st.lists(points, min_size=1, max_size=8))
def test_the_front_is_what_nobody_beats(places: list[tuple[int, int]]) -> None:
    """No row of it is beaten, every other one is; more natural accuracy costs robust accuracy along it."""
    found = comparison(*(trained(f"row {index}", 0, learner(*place)) for index, place in enumerate(places)))
    front = {(row.values[NATURAL][0], row.values[ROBUST][0]) for row in found.front()}
    every = {(row.values[NATURAL][0], row.values[ROBUST][0]) for row in found.rows()}
    for one in every:
        beaten = any(other != one and other[0] >= one[0] and other[1] >= one[1] for other in every)
        assert (one in front) != beaten
    ordered = sorted(front)
    assert [robust for _, robust in ordered] == sorted((robust for _, robust in ordered), reverse=True)


@given(points, st.lists(points, min_size=2, max_size=5))
def test_a_curve_reaches_its_points_and_what_is_below_them(row: tuple[int, int], curve: list[tuple[int, int]]) -> None:
    """A row is below the curve if a point of it beats the row; at a point itself it is not above."""
    on = [trained(f"C, {index}", 0, learner(*place), curve="C") for index, place in enumerate(curve)]
    found = comparison(trained("A", 0, learner(*row)), *on)
    first, *others = found.rows()
    above = found.above_curves(first)
    assert all(found.above_curves(other) is None for other in others)
    if row[0] > max(natural for natural, _ in curve):
        assert above is None
        return
    assert above is not None
    beyond = [robust for natural, robust in curve if natural >= row[0]]
    assert above.mean <= (row[1] - max(beyond)) / 10 + 1e-9
    assert above.mean >= (row[1] - max(robust for _, robust in curve)) / 10 - 1e-9


def test_between_two_points_a_curve_is_a_straight_line() -> None:
    """Halfway in natural accuracy is halfway in robust accuracy."""
    on = [trained(f"C, {place}", 0, learner(*place), curve="C") for place in ((800, 400), (900, 200))]
    found = comparison(trained("A", 0, learner(850, 350)), *on)
    above = found.above_curves(found.rows()[0])
    assert above is not None and above.mean == pytest.approx(5.0)


def test_a_conditional_training_is_a_row_at_each_lambda_and_a_curve() -> None:
    """As a training that is no other one's curve."""
    found = comparison(trained("OAT", 0, learner(900, 500, 1.0), learner(950, 400, 0.0)), reference="OAT")
    assert [row.title for row in found.rows()] == ["OAT, lambda 1", "OAT, lambda 0"]
    assert [row.title for row in found.curves()["OAT, over lambda and width"]] == ["OAT, lambda 1", "OAT, lambda 0"]


def test_the_table_has_a_line_for_each_row_and_seed() -> None:
    """With what it came to, its cost and its origin."""
    found = comparison(*(trained("A, with a comma", seed, learner(900, 300)) for seed in range(2)))
    lines = list(csv.DictReader(io.StringIO(found.as_csv())))
    assert [(line["row"], line["seed"]) for line in lines] == [("A, with a comma", "0"), ("A, with a comma", "1")]
    assert float(lines[0][HARMONIC]) == 45 and float(lines[0][WORST_CLASS]) == 0 and lines[0]["n"] == str(N)
    assert lines[1]["command"].endswith("seed=1") and lines[1]["commit"] == "c" * 40


def test_the_page_tells_all_of_it_and_what_is_missing() -> None:
    """Rows, differences, curves, figures of others marked as such, commands; and that it is not finished."""
    on = [trained(f"C, {place}", 0, learner(*place), curve="C") for place in ((800, 400), (900, 200))]
    others = (Published(title="Somebody's <method>", natural=80, robust=40, source="a paper"),)
    found = comparison(trained("A", 0, learner(850, 350)), trained("B", 0, learner(840, 360)), *on)
    page = build(found.model_copy(update={"published": others, "missing": 2}))
    for words in (
        "2. B",
        "+1.0",
        "Not finished",
        "Published figures, not ours",
        "&lt;method&gt;",
        "seed=0",
        "linf:0.15",
    ):
        assert words in page, words
    assert "<script" not in page and "src=" not in page and 'href="http' not in page
