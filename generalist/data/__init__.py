"""From a source of images to prepared splits on disk, and from there to batches on the device."""

from generalist.data.augmentation import augment
from generalist.data.batches import Resident, Samples, epoch, steps_per_epoch
from generalist.data.contract import Dataset, Raw, Source, Split
from generalist.data.loading import load
from generalist.data.manifest import Manifest, request_digest
from generalist.data.mapped import Mapped
from generalist.data.placing import images_on
from generalist.data.preparation import prepare

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
    "epoch",
    "images_on",
    "load",
    "prepare",
    "request_digest",
    "steps_per_epoch",
]
