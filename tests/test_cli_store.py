"""The commands `generalist store`."""

import os
import re
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from generalist.store import Store
from pipelines.cli import app

KEYS = ["aa" * 32, "bb" * 32, "cc" * 32]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Three states in a project's store: used today, ten days ago, and fifty days ago."""
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    store = Store(tmp_path / ".generalist" / "store")
    for key, days in zip(KEYS, (0, 10, 50), strict=True):
        store.save(key, "trajectory", {"w": torch.ones(1000)}, {"epoch": days})
        used = time.time() - days * 86400
        os.utime(store.path(key), (used, used))
    return store


def said(*arguments: str, code: int = 0) -> str:
    """Return what a command prints, its errors last."""
    found = CliRunner().invoke(app, ["store", *arguments])
    assert found.exit_code == code, found.output
    return found.stdout + found.stderr


def test_list_sums_up_by_kind_or_shows_files(store: Store) -> None:
    """Sizes for people, and where all of it lies."""
    assert re.search(r"trajectory +3 +1\d\.\d kB", said("list"))
    lines = said("list", "--files").splitlines()
    assert [line.split()[-1] for line in lines[1:4]] == [str(store.path(key).relative_to(store.folder)) for key in KEYS]
    assert lines[-1].endswith(f"in {store.folder}")


def test_an_empty_store_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first training."""
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    assert "nothing yet" in said("list")
    assert "0 of 0 states are whole" in said("verify")
    assert "deleted 0 of 0 files" in said("prune")
    assert not (tmp_path / ".generalist").exists()


def test_verify_finds_damage_and_sets_it_aside(store: Store) -> None:
    """Exit code 1 the first time; then all that is left is whole."""
    path = store.path(KEYS[1])
    path.write_bytes(path.read_bytes()[:-1])
    told = said("verify", code=1)
    assert "2 of 3 states are whole" in told
    assert f"{path} is damaged" in told
    assert "2 of 2 states are whole" in said("verify")
    assert "damaged" in said("list")


def test_prune_deletes_what_nobody_used(store: Store) -> None:
    """By days, after saying so on demand; rubbish always, but not a file that may have a writer."""
    store.path(KEYS[1]).replace(store.path(KEYS[1]).with_name(store.path(KEYS[1]).name + ".damaged"))
    (store.path(KEYS[0]).parent / f".{KEYS[0]}.safetensors.tmp").write_bytes(b"half")
    assert "would delete 2 of 4 files" in said("prune", "--dry-run")
    assert "deleted 2 of 4 files" in said("prune")
    assert KEYS[0] in store and KEYS[2] not in store
    assert "deleted 1 of 2 files" in said("prune", "--older-than", "0")
    assert KEYS[0] not in store


def test_the_store_may_lie_elsewhere(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder or an address in GENERALIST_STORE."""
    monkeypatch.setenv("GENERALIST_STORE", "other")
    assert str(tmp_path / "other") in said("list")
    monkeypatch.setenv("GENERALIST_STORE", (tmp_path / "far").as_uri())
    assert f"copies in {store.folder}" in said("list")
    monkeypatch.setenv("GENERALIST_STORE", "nonsense://x")
    assert "nonsense://x can't be opened" in said("list", code=2)
