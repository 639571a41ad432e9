"""What every file of `generalist/data/sources` keeps, by being there."""

from pathlib import Path

import numpy as np
import pytest

from generalist.config.section import part, part_names, plugin
from generalist.data import Source
from generalist.errors import BadInput

NAMES = part_names("data.sources")
WITH_A_PLACE = [name for name in NAMES if "path" in part("data.sources", name, Source).model_fields]  # type: ignore[type-abstract]


@pytest.mark.parametrize("name", WITH_A_PLACE)
def test_where_nothing_lies_is_told(name: str, tmp_path: Path) -> None:
    """In one sentence that names the place; nothing is fetched or made."""
    source = plugin("data.sources", {"name": name, "path": "nowhere"})
    with pytest.raises(BadInput, match="nowhere"):
        source.read(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert source.title


@pytest.mark.parametrize("name", sorted({*NAMES} - {*WITH_A_PLACE}))
def test_what_needs_no_place_is_read(name: str, tmp_path: Path) -> None:
    """Images uint8 [n, channels, height, width] with labels among the classes; the same a second time."""
    source = plugin("data.sources", {"name": name})
    first, second = source.read(tmp_path), source.read(tmp_path)
    for split in (first.train, first.test):
        assert split.images.dtype == np.uint8 and split.images.ndim == 4 and len(split.images) == len(split) > 0
        assert split.labels.dtype == np.int64 and {*split.labels.tolist()} <= {*range(len(first.class_names))}
    assert first.train.images.shape[1:] == first.test.images.shape[1:]
    assert first.checksum == second.checksum and (first.train.images == second.train.images).all()
