"""Images that change after they were prepared, copies across splits, and threats that allow everything."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from generalist.config import check
from generalist.data import Dataset, changed_since, check_watched, load, prepare
from generalist.data.sources.folder import Folder
from generalist.errors import BadInput
from generalist.store import Store
from generalist.threats import Threat
from generalist.training import Trainer
from pipelines import steps
from pipelines.workspace import Workspace
from tests.command_line import refused
from tests.training_factory import small


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of two classes of ten."""
    draw = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "raw" / name).mkdir(parents=True)
        for index in range(10):
            pixels = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "raw" / name / f"{index}.png")
    return tmp_path / "raw"


def options(**more: object) -> Folder:
    """Return the section `data`."""
    return Folder.model_validate({"name": "folder", "path": "raw", "size": 8, **more})


def later(path: Path) -> None:
    """Make a change that a clock of seconds sees."""
    moment = time.time() + 5
    os.utime(path, (moment, moment))


def repainted(path: Path) -> None:
    """Other pixels under the same name."""
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(path)
    later(path)


def test_what_did_not_change_is_fresh(pictures: Path) -> None:
    """Also where it was only touched: then its content is read."""
    root = pictures.parent
    prepare(options(), root / "data", root=root)
    assert not changed_since(options(), root / "data", root=root)
    later(pictures / "cat" / "1.png")
    assert not changed_since(options(), root / "data", root=root)


@pytest.mark.parametrize("face", ["changed", "added", "removed", "behind a link"])
def test_what_changed_is_noticed(pictures: Path, face: str) -> None:
    """Wherever the folder lies."""
    root = pictures.parent
    elsewhere = pictures.rename(root / "elsewhere") if face == "behind a link" else pictures
    if face == "behind a link":
        pictures.symlink_to(elsewhere)
    prepare(options(), root / "data", root=root)
    if face == "removed":
        (elsewhere / "cat" / "3.png").unlink()
        later(elsewhere / "cat")
    else:
        repainted(elsewhere / "cat" / ("new.png" if face == "added" else "3.png"))
    assert changed_since(options(), root / "data", root=root)


def test_a_loop_of_links_is_walked_once(pictures: Path) -> None:
    """It has no end otherwise."""
    root = pictures.parent
    prepare(options(), root / "data", root=root)
    (pictures / "cat" / "again").symlink_to(pictures)
    repainted(pictures / "dog" / "0.png")
    (pictures / "cat" / "again").unlink()
    assert changed_since(options(), root / "data", root=root)


def test_a_training_takes_no_old_images(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without DVC, `generalist train` says that they changed, and reads them anew."""
    root = pictures.parent
    (root / "params.yaml").touch()
    workspace = Workspace(root, root)
    config = check({**small().model_dump(mode="json"), "data": options().model_dump(mode="json")})
    prepare(config.data, workspace.prepared, root=root)
    assert steps.prepare_data(config, workspace) == workspace.prepared
    repainted(pictures / "cat" / "3.png")
    fresh = steps.prepare_data(config, workspace)
    assert fresh != workspace.prepared
    assert load(fresh).digest != load(workspace.prepared).digest
    assert "images have changed since" in caplog.text


def test_dvc_prepares_nothing_whose_changes_it_would_not_see(tmp_path: Path) -> None:
    """A folder elsewhere; official files, known by checksums, may lie anywhere."""
    watched = tmp_path / "data" / "raw"
    with pytest.raises(BadInput, match=r"outside of .*data/raw, where DVC would not see that images change"):
        check_watched(options(path="../pictures"), root=tmp_path, watched=watched)
    check_watched(options(path="data/raw/pictures"), root=tmp_path, watched=watched)
    check_watched(small("data={name: cifar10, path: /elsewhere}").data, root=tmp_path, watched=watched)
    check_watched(small().data, root=tmp_path, watched=watched)


def test_a_link_in_the_watched_folder_is_watched(tmp_path: Path) -> None:
    """As `dvc add` leaves one where its cache links."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data" / "raw").mkdir(parents=True)
    (tmp_path / "data" / "raw" / "pictures").symlink_to(tmp_path / "elsewhere")
    check_watched(options(path="data/raw/pictures"), root=tmp_path, watched=tmp_path / "data" / "raw")


# --- copies -----------------------------------------------------------------------------------------


def test_copies_across_splits_are_counted_and_can_be_removed(pictures: Path) -> None:
    """The same pixels under another name, in another class or not; the test split stays as it is."""
    root = pictures.parent
    for index in range(5):
        (pictures / "cat" / f"copy{index}.png").write_bytes((pictures / "cat" / f"{index}.png").read_bytes())
    kept = prepare(options(test=0.3), root / "kept", root=root)
    assert kept.copies["test in train"] > 0
    removed = prepare(options(test=0.3, copies="remove"), root / "removed", root=root)
    assert removed.copies == {"validation in train": 0, "test in train": 0, "test in validation": 0}
    assert removed.test_digest == kept.test_digest
    assert sum(removed.counts["train"].values()) < sum(kept.counts["train"].values())
    assert load(root / "kept").copies == kept.copies


def test_without_copies_nothing_changes(pictures: Path) -> None:
    """Removing none gives the same data."""
    root = pictures.parent
    one = prepare(options(), root / "one", root=root)
    other = prepare(options(copies="remove"), root / "other", root=root)
    assert one.copies == {"validation in train": 0, "test in train": 0, "test in validation": 0}
    assert one.digest == other.digest


# --- threats ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("threat", "hint"),
    [("linf:8", "linf:8/255"), ("linf:1", "linf:1/255"), ("l2:128", "l2:128/255"), ("l1:3072", "l1:3072/255")],
)
def test_a_radius_that_allows_every_image_is_refused(threat: str, hint: str) -> None:
    """Nobody can be robust to that; mostly it was meant in units of 8-bit pixels."""
    with pytest.raises(BadInput, match=rf"allows every image, as its 3072 numbers lie in .*: did you mean {hint}"):
        Threat.parse(threat).check_plausible(3 * 32 * 32)


@pytest.mark.parametrize("threat", ["linf:8/255", "linf:0.999", "l2:55", "l2:0.5", "l1:3071", "l1:12"])
def test_other_radii_are_accepted(threat: str) -> None:
    """Large as they may be."""
    Threat.parse(threat).check_plausible(3 * 32 * 32)


def test_such_a_radius_is_refused_at_every_door(dataset: Dataset, tmp_path: Path) -> None:
    """When a configuration is read, when a training begins, and by `attack`."""
    for path in ("experts.robust.objective.threat.eps=8", "evaluation.threats.0.eps=8/1"):
        with pytest.raises(BadInput, match=r"an 'eps' of 8.* allows every image, as pixels lie in"):
            small(path)
    config = small("evaluation.threats.0={norm: l2, eps: 8}")
    with pytest.raises(BadInput, match=r"l2:8 allows every image, as its 64 numbers .* did you mean l2:8/255"):
        Trainer(config, dataset, Store(tmp_path / "store"))
    np.savez(tmp_path / "own.npz", images=np.zeros((2, 1, 8, 8), np.uint8), labels=np.array([0, 1]))
    sentence = refused("attack", "weights.safetensors", "--threat", "linf:8", "--data", str(tmp_path / "own.npz"))
    assert "did you mean linf:8/255" in sentence
