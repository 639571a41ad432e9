"""From a source of images to prepared splits on disk, and from there to batches on the device."""

from generalist.data.augmentation import augment
from generalist.data.batches import Resident, epoch, steps_per_epoch
from generalist.data.contract import Dataset, Raw, Source, Split
from generalist.data.loading import load
from generalist.data.manifest import Manifest, request_digest
from generalist.data.preparation import prepare

__all__ = [
    "Dataset",
    "Manifest",
    "Raw",
    "Resident",
    "Source",
    "Split",
    "augment",
    "epoch",
    "load",
    "prepare",
    "request_digest",
    "steps_per_epoch",
]
