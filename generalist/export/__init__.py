"""The ONNX file that people take away: making it, its lineage and seals, parity with torch, prediction.

Names are imported when asked for: prediction needs no torch, which takes seconds to import.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from generalist.export.agreement import Parity, parity
    from generalist.export.graph import export
    from generalist.export.lineage import Lineage, evaluation_digest
    from generalist.export.predictor import Prediction, Predictor
    from generalist.export.seal import graph_digest, read_metadata, verify
    from generalist.export.weights import read_classifier, shape_of, write_weights

_HOME = {
    "Lineage": "lineage",
    "Parity": "agreement",
    "Prediction": "predictor",
    "Predictor": "predictor",
    "evaluation_digest": "lineage",
    "export": "graph",
    "graph_digest": "seal",
    "parity": "agreement",
    "read_classifier": "weights",
    "read_metadata": "seal",
    "shape_of": "weights",
    "verify": "seal",
    "write_weights": "weights",
}

__all__ = [
    "Lineage",
    "Parity",
    "Prediction",
    "Predictor",
    "evaluation_digest",
    "export",
    "graph_digest",
    "parity",
    "read_classifier",
    "read_metadata",
    "shape_of",
    "verify",
    "write_weights",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
