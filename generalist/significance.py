"""Whether two classifiers differ on the same images. No torch here."""


def mcnemar(lost: int, won: int) -> float:
    """Return the probability of at least `lost` losses if losses and wins were equally likely.

    McNemar's test of paired verdicts, exact and one-sided (McNemar, Psychometrika 12, 1947).
    Without a discordant pair nothing speaks against equality: 1.
    """
    if lost + won == 0:
        return 1.0
    from scipy.special import bdtrc  # scipy.stats has the test by name, and takes a second to import

    return float(bdtrc(lost - 1, lost + won, 0.5))
