"""Whether two classifiers differ on the same images, and what a few seeds say of a mean. No torch here."""

import statistics
from collections.abc import Sequence


def mcnemar(lost: int, won: int) -> float:
    """Return the probability of at least `lost` losses if losses and wins were equally likely.

    McNemar's test of paired verdicts, exact and one-sided (McNemar, Psychometrika 12, 1947).
    Without a discordant pair nothing speaks against equality: 1.
    """
    if lost + won == 0:
        return 1.0
    from scipy.special import bdtrc  # scipy.stats has the test by name, and takes a second to import

    return float(bdtrc(lost - 1, lost + won, 0.5))


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean of a few values and the ends of its 95 % interval (Student's t); of one value, infinite ends."""
    mean, n = statistics.mean(values), len(values)
    if n < 2:
        return mean, float("-inf"), float("inf")
    from scipy.special import stdtrit  # the quantile of Student's t; scipy.stats takes a second to import

    reach = float(stdtrit(n - 1, 0.975)) * statistics.stdev(values) / n**0.5
    return mean, mean - reach, mean + reach
