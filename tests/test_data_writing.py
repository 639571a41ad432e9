"""`prepare` writes all or nothing, and only over what is its own."""

import errno
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from generalist.config.section import plugin
from generalist.data import Source, load, prepare
from generalist.data.manifest import MANIFEST
from generalist.errors import BadInput

ROOT = Path()


def digits(**options: Any) -> Source:
    """Options of the source `digits`."""
    source = plugin("data.sources", {"name": "digits", **options})
    assert isinstance(source, Source)
    return source


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder: files by content, folders as None."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def test_parents_are_made_and_nothing_else_is_left(tmp_path: Path) -> None:
    """The folder appears with its seven files; no temporary name stays."""
    prepare(digits(), tmp_path / "a" / "b", root=ROOT)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]
    assert len(list((tmp_path / "a" / "b").iterdir())) == 7


def test_prepared_data_and_empty_folders_are_replaced(tmp_path: Path) -> None:
    """A second `prepare` with other options wins; so does the first over an empty folder."""
    target = tmp_path / "data"
    target.mkdir()
    prepare(digits(), target, root=ROOT)
    second = prepare(digits(seed=1), target, root=ROOT)
    assert load(target).digest == second.digest
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_open_data_outlives_its_replacement(tmp_path: Path) -> None:
    """A training that has mapped the old files goes on seeing them."""
    target = tmp_path / "data"
    prepare(digits(), target, root=ROOT)
    train = load(target).train
    before = np.array(train.images)
    prepare(digits(seed=1), target, root=ROOT)
    assert np.array_equal(train.images, before)
    assert not np.array_equal(load(target).train.images, before)


def test_a_link_is_followed(tmp_path: Path) -> None:
    """Where the target is a link to a folder, that folder is written and the link stays."""
    (tmp_path / "link").symlink_to(tmp_path / "real")
    prepare(digits(), tmp_path / "link", root=ROOT)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / MANIFEST).is_file()


def a_file(target: Path) -> None:
    """Put a file where the folder should be."""
    target.write_text("notes")


def below_a_file(target: Path) -> None:
    """Put a file where the parent should be."""
    target.parent.rmdir()
    target.parent.write_text("notes")


def no_manifest(target: Path) -> None:
    """Files of somebody's."""
    target.mkdir()
    (target / "train_images.npy").write_text("mine")


def something_beside(target: Path) -> None:
    """Prepare data, with a note of the user's beside them."""
    prepare(digits(), target, root=ROOT)
    (target / "notes.txt").write_text("mine")


@pytest.mark.parametrize(
    ("occupy", "sentence"),
    [
        (a_file, "data is a file"),
        (below_a_file, "is a file; remove it or name another folder"),
        (no_manifest, r"holds files but no manifest\.json"),
        (something_beside, r"holds 'notes\.txt'"),
    ],
)
def test_what_is_not_prepared_data_is_left_alone(tmp_path: Path, occupy: Callable[[Path], None], sentence: str) -> None:
    """The target is refused before the source is read, and nothing is touched."""
    target = tmp_path / "home" / "data"
    target.parent.mkdir()
    occupy(target)
    before = tree(tmp_path)
    with pytest.raises(BadInput, match=sentence):
        prepare(digits(validation=0.0005), target, root=ROOT)  # a share that reading would refuse
    assert tree(tmp_path) == before


def test_a_folder_without_permission_is_told_before_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permissions are looked at first (root has them all, hence the pretence)."""

    def forbidden(**_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", forbidden)
    with pytest.raises(BadInput, match="may not be written to"):
        prepare(digits(), tmp_path / "data", root=ROOT)


def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the fourth file find no space."""
    saves = iter([np.save] * 3)

    def save(*arguments: Any, **options: Any) -> None:
        try:
            next(saves)(*arguments, **options)
        except StopIteration:
            raise OSError(28, "No space left on device") from None

    monkeypatch.setattr(np, "save", save)


def failing_rename(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the finished folder from taking the target's name; the old one can go back to it."""
    replace = Path.replace

    def guarded(self: Path, target: Path) -> Path:
        if target.name == "data":
            raise OSError(5, "Input/output error")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", guarded)


def test_ctrl_c_between_two_renames_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old data had made room for the new ones already."""
    target = tmp_path / "data"
    prepare(digits(), target, root=ROOT)
    before, replace = tree(tmp_path), Path.replace

    def stopped(self: Path, place: Path) -> Path:
        if place == target:
            raise KeyboardInterrupt
        return replace(self, place)

    monkeypatch.setattr(Path, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        prepare(digits(), target, root=ROOT)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("fail", [full_disk, failing_rename])
@pytest.mark.parametrize("existing", [False, True])
def test_a_failed_write_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail: Callable[[pytest.MonkeyPatch], None], existing: bool
) -> None:
    """Whatever fails on the way, what was there is there, and nothing else."""
    target = tmp_path / "data"
    if existing:
        prepare(digits(), target, root=ROOT)
    before = tree(tmp_path)
    fail(monkeypatch)
    with pytest.raises(BadInput, match=r"data can't be written \((No space|Input/output)"):
        prepare(digits(seed=1), target, root=ROOT)
    assert tree(tmp_path) == before
