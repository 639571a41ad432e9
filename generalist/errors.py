"""The one exception for what a user can mend."""


class BadInput(ValueError):
    """Wrong input, told in one sentence: what is wrong, where, and how to mend it.

    Every door (command line, DVC, Prefect) shows the sentence alone and ends with a non-zero exit.
    """
