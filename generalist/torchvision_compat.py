"""torchvision, also beside a torch that its compiled operators don't fit: import it from here.

The wheels of the package index link CUDA libraries. Beside a CPU build of torch those operators don't
load, and `import torchvision` fails where it describes `nms` and `qnms`. Declared by their signatures
alone they let the import pass: data sets, models and transforms then work, those two operators don't.
"""

import importlib
from typing import Any

import torch

_SYMPTOM = "operator torchvision::nms does not exist"
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[torch.library.Library] = []  # a declaration lasts as long as its library object


def _declare_operators() -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(name + _SIGNATURE)
    _declared.append(library)


def import_torchvision() -> Any:
    """Import torchvision; if, and only if, its operators are missing, declare them and import it again.

    Raises:
        Exception: whatever the import raises for any other reason, or again after the declaration.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if _SYMPTOM not in str(error):
            raise
    _declare_operators()
    return importlib.import_module("torchvision")


torchvision: Any = import_torchvision()
