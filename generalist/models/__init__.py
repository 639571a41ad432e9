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
)
from generalist.models.layers.building import build, initialise, outline, unfilled
from generalist.models.layers.slimmable import add_gradients, at_width, weights_at_width, widths_of

__all__ = [
    "DECISION",
    "Architecture",
    "Classifier",
    "Encoded",
    "Encoding",
    "Head",
    "LossView",
    "Role",
    "add_gradients",
    "at_width",
    "build",
    "initialise",
    "outline",
    "unfilled",
    "weights_at_width",
    "widths_of",
]
