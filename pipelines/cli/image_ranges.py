"""Which images of a data set a command takes: a range, as a shard, or a number of them."""

from dataclasses import dataclass

import numpy as np

from generalist.data.dataset import Int64
from generalist.data.splits import stratified_indices
from generalist.errors import BadInput
from pipelines.cli.shell import tell


@dataclass(frozen=True)
class Choice:
    """Some images.

    Attributes:
        positions: in the data set.
        first: place of the first one in the whole that shards are parts of.
        told: which they are, for people and for files.
    """

    positions: Int64
    first: int
    told: str


def chosen_images(written: str, labels: Int64, *, seed: int) -> Choice:
    """Read `FIRST:END`, or a number of images with the shares of all classes; classes that are left out are told.

    Raises:
        BadInput: it is neither, or there are not so many.
    """
    count = len(labels)
    if written.isdecimal() and 0 < int(written) < count:
        positions = stratified_indices(labels, int(written), seed=seed)
        choice = Choice(positions, 0, f"{written} of {count}, stratified by class, seed {seed}")
    elif written.isdecimal() and int(written) == count:
        choice = Choice(np.arange(count), 0, "all")
    else:
        first, end = _range(written, count)
        choice = Choice(np.arange(first, end), first, "all")  # which shards together are
    _tell_absent(written, labels, choice)
    return choice


def _tell_absent(written: str, labels: Int64, choice: Choice) -> None:
    whole, part = np.unique(labels), np.unique(labels[choice.positions])
    if len(part) < len(whole):
        tell(
            f"note: --images {written} holds {len(part)} of {len(whole)} classes, so its accuracies are of these alone;"
            " a number in place of a range takes all classes with their shares"
        )


def _range(written: str, count: int) -> tuple[int, int]:
    """Return the images from the first to the one before the end."""
    first, colon, end = written.partition(":")
    try:
        bounds = int(first or 0), int(end or count)
    except ValueError:
        bounds = -1, -1
    if not colon or not 0 <= bounds[0] < bounds[1] <= count:
        raise BadInput(
            f"--images {written} is no range and no number among {count} images: write it as 0:{count}, or as {count}"
        )
    return bounds
