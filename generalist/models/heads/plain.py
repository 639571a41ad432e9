"""One raw output for each class: its logit."""

from typing import Literal

from generalist.config import HeadOptions
from generalist.models.contract import Head


class Plain(HeadOptions):
    """The head of a plain classifier."""

    name: Literal["plain"]

    def __call__(self, classes: int) -> Head:
        return Head(classes)
