"""The one exception for what a user can mend."""

from generalist.masking import masked


class BadInput(ValueError):
    """Wrong input, told in one sentence: what is wrong, where, and how to mend it.

    Every door (command line, DVC, Prefect) shows the sentence alone and ends with a non-zero exit. Wherever it is shown
    or kept, no address in it has a password.
    """

    def __init__(self, sentence: object = "") -> None:
        super().__init__(masked(sentence))
