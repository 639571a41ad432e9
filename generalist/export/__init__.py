"""The ONNX file that people take away: making it, its lineage and seals, parity with torch, prediction.

Names are imported when asked for: prediction needs no torch, which takes seconds to import.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from generalist.export.graph import export as export
    from generalist.export.integrity import graph_digest as graph_digest
    from generalist.export.integrity import read_metadata as read_metadata
    from generalist.export.integrity import verify as verify
    from generalist.export.lineage import Lineage as Lineage
    from generalist.export.lineage import evaluation_digest as evaluation_digest
    from generalist.export.parity_check import Parity as Parity
    from generalist.export.parity_check import check_parity as check_parity
    from generalist.export.predictor import Prediction as Prediction
    from generalist.export.predictor import Predictor as Predictor
    from generalist.export.weights import read_classifier as read_classifier
    from generalist.export.weights import shape_of as shape_of
    from generalist.export.weights import write_weights as write_weights
    from generalist.export.widths import model_at_width as model_at_width
    from generalist.export.widths import width_file as width_file
    from generalist.export.widths import width_files as width_files

_NAMES = {
    "parity_check": "Parity check_parity",
    "graph": "export",
    "lineage": "Lineage evaluation_digest",
    "predictor": "Prediction Predictor",
    "integrity": "graph_digest read_metadata verify",
    "widths": "model_at_width width_file width_files",
    "weights": "read_classifier shape_of write_weights",
}
"""What each module gives."""


def __getattr__(name: str) -> Any:
    for module, names in _NAMES.items():
        if name in names.split():
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
