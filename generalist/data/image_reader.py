"""Image files decoded to one size, with the digests of all and what is wrong with some."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from generalist.data.decoding import UnreadableImage, content, decode, refuse, tell_remarks
from generalist.data.image_files import ImageListing, composed

LabelledImages = list[tuple[NDArray[np.uint8], int]]


@dataclass
class ImageReader:
    """Decodes files, and notes the digests of all and what is wrong with some.

    Attributes:
        digests: SHA-256 (hex) of the bytes of each file by its name below the root, composed.
    """

    found: ImageListing
    size: tuple[int, int]
    grayscale: bool
    digests: dict[str, str] = field(default_factory=dict)
    unreadable: list[UnreadableImage] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def read(self, listing: Mapping[str, Sequence[Path]]) -> LabelledImages:
        """Return images uint8 [channels, height, width] with their labels; the unreadable are noted."""
        pairs: LabelledImages = []
        for label, files in enumerate(listing.values()):
            for file in files:
                try:
                    given = content(file)
                    image = decode(given, size=self.size, grayscale=self.grayscale, path=file, remarks=self.remarks)
                except UnreadableImage as error:
                    self.unreadable.append(error)
                    continue
                self.digests["/".join(composed(self.found.below(file)))] = hashlib.sha256(given).hexdigest()
                pairs.append((image, label))
        return pairs

    def check(self) -> None:
        """Refuse what can't be read, all of it at once, and tell what Pillow warned of."""
        if self.unreadable:
            refuse(self.unreadable)
        tell_remarks(self.remarks)
