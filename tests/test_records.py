"""Facts that travel: intervals of accuracies."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import binomtest

from generalist.records import Accuracy, Measured

COUNTS = st.integers(1, 100_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


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


@given(COUNTS, COUNTS)
@example((1, 1), (1, 1))
@example((0, 1), (0, 1))
def test_the_harmonic_mean_lies_between_both(natural: tuple[int, int], robust: tuple[int, int]) -> None:
    """Of equal accuracies it is that accuracy, to the bit: of two ones it is one; it is 0 where one of them is."""
    own = [Accuracy(correct=correct, n=n) for correct, n in (natural, robust)]
    values = [accuracy.value for accuracy in own]
    harmonic = Measured(natural=own[0], robust=own[1]).harmonic
    assert isinstance(harmonic, float)
    assert min(values) <= harmonic <= max(values)
    assert (harmonic == 0) == (min(values) == 0)
