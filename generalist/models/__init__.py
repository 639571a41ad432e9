"""Networks in their CIFAR form; each file here is one architecture, found by its name."""

from generalist.models.contract import (
    DECISION,
    Architecture,
    Classifier,
    Encoded,
    Encoding,
    Head,
    LossView,
    Role,
    build,
    initialise,
    unfilled,
)

__all__ = [
    "DECISION",
    "Architecture",
    "Classifier",
    "Encoded",
    "Encoding",
    "Head",
    "LossView",
    "Role",
    "build",
    "initialise",
    "unfilled",
]
