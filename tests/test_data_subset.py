"""A part of the training images, to try things."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from generalist.config import load as load_config
from generalist.data import Source, SourceData, Split, load, prepare, request_digest
from generalist.errors import BadInput

PARAMS = Path(__file__).parent.parent / "params.yaml"


class Numbered(Source):
    """Fifty training and ten test images whose pixels tell their position, classes in turn or one after the other."""

    name: Literal["numbered"] = "numbered"
    sorted_by_class: bool = False

    def read(self, root: Path) -> SourceData:
        """Two classes."""
        names = ("no", "yes")
        train, test = (Split(_numbered(count), np.arange(count) % 2) for count in (50, 10))
        if self.sorted_by_class:
            train = Split(train.images, np.arange(50) // 25)
        return SourceData(train, test, names, "numbered", "0" * 64)


def _numbered(count: int) -> Any:
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 1, 4, 4))


def positions(split: Split) -> list[int]:
    """Of the images of a split in their source."""
    return split.images[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("count", [20, 50])
def test_images_are_chosen_before_validation(count: int, ordered: bool, tmp_path: Path) -> None:
    """Training and validation split share them as they share all, also of a source in the order of classes."""
    options = Numbered(images=count, validation=0.2, sorted_by_class=ordered)
    manifest = prepare(options, tmp_path / "few", root=tmp_path)
    data = load(tmp_path / "few")
    assert len(set(positions(data.train) + positions(data.validation))) == count
    assert len(data.validation) == count // 5
    assert positions(data.test) == list(range(10))
    assert manifest.counts["validation"] == {"no": count // 10, "yes": count // 10}


def test_all_of_them_by_number_are_the_same_data(tmp_path: Path) -> None:
    """The request differs, so data is prepared again; trainings see the same and train nothing again."""
    whole, counted = (prepare(Numbered(images=images), tmp_path / str(images), root=tmp_path) for images in ("all", 50))
    assert counted.digest == whole.digest
    assert counted.request_digest != whole.request_digest


def test_a_part_is_another_request_and_other_data(tmp_path: Path) -> None:
    """Yet with the same test split, so evaluations compare."""
    whole, part = (prepare(Numbered(images=images), tmp_path / str(images), root=tmp_path) for images in ("all", 40))
    assert request_digest(Numbered(images=40)) == part.request_digest != whole.request_digest
    assert part.digest != whole.digest
    assert part.test_digest == whole.test_digest


def test_more_than_there_are_is_refused(tmp_path: Path) -> None:
    """With how many there are; nothing is written."""
    with pytest.raises(BadInput, match=r"data.images is 51, but there are only 50 images to train on; set it to that"):
        prepare(Numbered(images=51), tmp_path / "few", root=tmp_path)
    assert not list(tmp_path.iterdir())


def test_fewer_images_than_classes_are_refused(tmp_path: Path) -> None:
    """Nothing is written."""
    with pytest.raises(BadInput, match=r"data\.images is 1, too few for 2 classes; raise it"):
        prepare(Numbered(images=1, sorted_by_class=True), tmp_path / "few", root=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", ["0", "-1", "some"])
def test_no_number_of_images_is_refused(count: str) -> None:
    """One at least, or all."""
    with pytest.raises(BadInput, match=r"data\.images is .*, but it should be"):
        load_config(PARAMS, overrides=[f"data.images={count}"])
