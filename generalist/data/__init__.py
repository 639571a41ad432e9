"""From a source of images to prepared splits on disk, and from there to batches on the device.

Names are imported when asked for: prediction decodes images without torch, which takes seconds to import.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from generalist.data.augmentation import augment as augment
    from generalist.data.batches import InMemorySamples as InMemorySamples
    from generalist.data.batches import Samples as Samples
    from generalist.data.batches import epoch as epoch
    from generalist.data.batches import last_batch as last_batch
    from generalist.data.batches import steps_per_epoch as steps_per_epoch
    from generalist.data.dataset import Dataset as Dataset
    from generalist.data.dataset import Source as Source
    from generalist.data.dataset import SourceData as SourceData
    from generalist.data.dataset import Split as Split
    from generalist.data.loading import changed_since as changed_since
    from generalist.data.loading import check_watched as check_watched
    from generalist.data.loading import load as load
    from generalist.data.manifest import Manifest as Manifest
    from generalist.data.manifest import request_digest as request_digest
    from generalist.data.mapped import MappedSamples as MappedSamples
    from generalist.data.mapped import images_on as images_on
    from generalist.data.preparation import prepare as prepare

_NAMES = {
    "augmentation": "augment",
    "batches": "InMemorySamples Samples epoch last_batch steps_per_epoch",
    "dataset": "Dataset SourceData Source Split",
    "loading": "changed_since check_watched load",
    "manifest": "Manifest request_digest",
    "mapped": "MappedSamples images_on",
    "preparation": "prepare",
}
"""What each module gives."""


def __getattr__(name: str) -> Any:
    for module, names in _NAMES.items():
        if name in names.split():
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
