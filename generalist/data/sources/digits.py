"""scikit-learn's digits: 1,797 grey images of 8×8 pixels in 10 classes; it comes with the library."""

import hashlib
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from generalist.config import Quantity
from generalist.config.bounds import Fraction
from generalist.data.dataset import Source, SourceData, Split
from generalist.data.splits import stratified_split

_WHITE = 16  # load_digits counts the set pixels of 4×4 blocks


class Digits(Source):
    """The test images of the UCI Optical Recognition of Handwritten Digits (Alpaydin and Kaynak 1998)."""

    name: Literal["digits"]
    test: Fraction = Field(Quantity("0.25"), description="share of the images held back for the test")

    def read(self, root: Path) -> SourceData:
        from sklearn.datasets import load_digits  # takes seconds, and reading a configuration needs none of it

        loaded = load_digits()
        images = np.rint(loaded.images * (255 / _WHITE)).astype(np.uint8)[:, None]
        split = Split(images, loaded.target.astype(np.int64))
        class_names = tuple(str(name) for name in loaded.target_names)
        train, test = stratified_split(split, self.test, seed=self.seed, class_names=class_names, purpose="test")
        checksum = hashlib.sha256(split.images.tobytes() + split.labels.tobytes()).hexdigest()
        return SourceData(train, test, class_names, "digits: sklearn.datasets.load_digits", checksum)
