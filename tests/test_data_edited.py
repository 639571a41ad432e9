"""Prepared data that somebody edited: one sentence with the file and the mend, before any training."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from generalist.config import to_yaml
from generalist.data import load, prepare
from generalist.data.manifest import ARRAYS, MANIFEST
from generalist.errors import BadInput
from tests.command_line import refused
from tests.edited import ARRAYS_EDITED, MANIFESTS_EDITED, reseal, saved
from tests.training_factory import small

EDITED = ARRAYS_EDITED | MANIFESTS_EDITED


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    """Prepared digits of the test's own."""
    return shutil.copytree(prepared, tmp_path / "data" / "prepared")


def _instead(kind: str) -> Callable[[Path], None]:
    """Something else than a file under its name."""

    def make(path: Path) -> None:
        path.unlink()
        {"FIFO": os.mkfifo, "folder": Path.mkdir, "zeros": lambda own: own.symlink_to("/dev/zero")}[kind](path)

    return make


@pytest.mark.parametrize(("edit", "told"), EDITED.values(), ids=list(EDITED))
def test_what_prepare_never_writes_is_refused(edit: Callable[[Path], None], told: str, folder: Path) -> None:
    """Though its digests agree."""
    edit(folder)
    with pytest.raises(BadInput, match=told) as error:
        load(folder)
    assert str(folder) in str(error.value)
    assert str(error.value).endswith("run `dvc repro --force prepare`")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["FIFO", "folder", "zeros"])
@pytest.mark.parametrize("name", [MANIFEST, *ARRAYS])
def test_only_regular_files_are_opened(kind: str, name: str, folder: Path) -> None:
    """Nobody waits for a writer, or for the end of /dev/zero."""
    _instead(kind)(folder / name)
    began = time.monotonic()
    with pytest.raises(BadInput, match=f"{name} can't be read .it is not a regular file.; run `dvc repro --force pre"):
        load(folder)
    assert time.monotonic() - began < 2


def test_what_says_the_same_in_another_way_is_taken(folder: Path) -> None:
    """As sealed again, and with images in Fortran's order."""
    before = np.array(load(folder).train.images)
    saved(folder, "train_images.npy", np.asfortranarray)
    np.testing.assert_array_equal(load(folder).train.images, before)
    reseal(folder)
    np.testing.assert_array_equal(load(folder).train.images, before)


ATTACK = ("attack", "global.safetensors", "--threat", "linf:0.1")


@pytest.mark.parametrize(
    ("words", "edited"),
    [
        (("plan",), "label beyond"),
        (("plan",), "means"),
        (("plan",), "nested"),
        (("plan",), "FIFO"),
        (ATTACK, "labels of objects"),
        (ATTACK, "UTF-16"),
        (ATTACK, "FIFO"),
        pytest.param(("train",), "npz", marks=pytest.mark.long),  # it starts a server
        pytest.param(("train",), "FIFO", marks=pytest.mark.long),
    ],
)
def test_every_command_that_reads_them_refuses(
    words: tuple[str, ...], edited: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence on standard error and exit code 2, whatever the command."""
    config = small()
    folder = tmp_path / "data" / "prepared"
    prepare(config.data, folder, root=tmp_path)
    edit = _instead("FIFO") if edited == "FIFO" else EDITED[edited][0]
    edit(folder / MANIFEST if edited == "FIFO" else folder)
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "params.yaml").write_text(to_yaml(config), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert refused(*words).endswith("run `dvc repro --force prepare`")
    assert not (tmp_path / "outputs").exists()
