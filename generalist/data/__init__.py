"""From a source of images to prepared splits on disk, and from there to batches on the device.

Names are imported when asked for: prediction decodes images without torch, which takes seconds to import.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from generalist.data.augmentation import augment
    from generalist.data.batches import Resident, Samples, epoch, last_batch, steps_per_epoch
    from generalist.data.contract import Dataset, Raw, Source, Split
    from generalist.data.freshness import changed_since, check_watched
    from generalist.data.loading import load
    from generalist.data.manifest import Manifest, request_digest
    from generalist.data.mapped import Mapped
    from generalist.data.placing import images_on
    from generalist.data.preparation import prepare

_HOME = {
    "Dataset": "contract",
    "Manifest": "manifest",
    "Mapped": "mapped",
    "Raw": "contract",
    "Resident": "batches",
    "Samples": "batches",
    "Source": "contract",
    "Split": "contract",
    "augment": "augmentation",
    "changed_since": "freshness",
    "check_watched": "freshness",
    "epoch": "batches",
    "images_on": "placing",
    "last_batch": "batches",
    "load": "loading",
    "prepare": "preparation",
    "request_digest": "manifest",
    "steps_per_epoch": "batches",
}

__all__ = [
    "Dataset",
    "Manifest",
    "Mapped",
    "Raw",
    "Resident",
    "Samples",
    "Source",
    "Split",
    "augment",
    "changed_since",
    "check_watched",
    "epoch",
    "images_on",
    "last_batch",
    "load",
    "prepare",
    "request_digest",
    "steps_per_epoch",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
