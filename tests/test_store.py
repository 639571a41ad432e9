"""The store: whole or not at all, checksummed, free of pickle."""

import os
from pathlib import Path, PurePosixPath

import pytest
import torch

from generalist.atomic_files import write_atomically
from generalist.errors import BadInput
from generalist.store import Remote, StateLost, Store, tensors_digest, write_tensors
from generalist.store.files import refuse_foreign

KEY = "ab" * 32


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with one state."""
    store = Store(tmp_path / "store")
    store.save(KEY, "state", {"w": torch.arange(6.0).view(2, 3), "n": torch.tensor(3)}, {"epoch": 4, "seen": [1.5]})
    return store


def test_what_is_saved_is_loaded(store: Store) -> None:
    """Tensors with shape and dtype, and facts."""
    loaded = store.load(KEY)
    assert torch.equal(loaded.tensors["w"], torch.arange(6.0).view(2, 3))
    assert loaded.tensors["n"].dtype == torch.int64
    assert loaded.facts == {"epoch": 4, "seen": [1.5], "kind": "state", "key": KEY}
    assert KEY in store
    assert "cd" * 32 not in store


@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_a_truncated_state_is_refused(store: Store, length: int) -> None:
    """One sentence names the file and the mend; it is out of the way then, and whoever looks finds it."""
    path = store.path(KEY)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(StateLost, match=r"state file .* is damaged .*: the next run computes it again"):
        store.load(KEY)
    assert KEY not in store
    assert path.with_name(path.name + ".damaged").is_file()


def test_every_changed_byte_of_a_tensor_is_seen(store: Store) -> None:
    """safetensors does not check content; the checksum does."""
    path = store.path(KEY)
    whole = path.read_bytes()
    for offset in range(len(whole) - 32, len(whole)):
        path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1 :])
        with pytest.raises(StateLost, match="checksum differs"):
            store.load(KEY)


def test_a_missing_state_is_named(tmp_path: Path) -> None:
    """A key that was never saved."""
    with pytest.raises(BadInput, match="is missing"):
        Store(tmp_path).load(KEY)


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    """A pickle under our name is not opened as one."""
    store = Store(tmp_path)
    torch_file = store.path(KEY)
    torch_file.parent.mkdir(parents=True)
    torch.save({"w": torch.ones(2)}, torch_file)
    with pytest.raises(BadInput, match="is damaged"):
        store.load(KEY)


def test_a_file_of_ours_may_begin_as_a_pickle_does(tmp_path: Path) -> None:
    """The first byte of safetensors is that of its header's length, which may be any."""
    path, first = tmp_path / "weights.safetensors", set[int]()
    for length in range(0, 260, 8):
        write_tensors(path, {"w": torch.zeros(1)}, {"note": "x" * length})
        refuse_foreign(path, mend="name another")
        first.add(path.read_bytes()[0])
    assert 0x80 in first


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    """Whatever the order of names."""
    one, two = {"a": torch.ones(2), "b": torch.zeros(3)}, {"b": torch.zeros(3), "a": torch.ones(2)}
    write_tensors(tmp_path / "1", one, {"x": 1, "y": 2})
    write_tensors(tmp_path / "2", two, {"y": 2, "x": 1})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_the_digest_sees_names_shapes_dtypes_and_values() -> None:
    """Any difference is another digest."""
    tensors = [
        {"a": torch.zeros(4)},
        {"b": torch.zeros(4)},
        {"a": torch.zeros(2, 2)},
        {"a": torch.zeros(2, dtype=torch.float64)},
        {"a": torch.tensor([0.0, 0.0, 0.0, -0.0])},
    ]
    assert len({tensors_digest(tensor) for tensor in tensors}) == len(tensors)


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    """The old content stays, and no temporary file remains."""
    (tmp_path / "file").mkdir()
    with pytest.raises(BadInput, match="can't be written"):
        write_atomically(tmp_path / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_where_a_folder_should_be_is_named(tmp_path: Path) -> None:
    """The store's folder can't be made."""
    (tmp_path / "store").write_bytes(b"")
    with pytest.raises(BadInput, match="can't be written"):
        Store(tmp_path / "store").save(KEY, "state", {}, {})


# --- lists ----------------------------------------------------------------------------------------


def test_entries_are_all_files_and_what_they_are(store: Store) -> None:
    """States by their kind, what was set aside, what a killed writer left; nothing of anybody else's."""
    store.save("cd" * 32, "share", {}, {"epoch": 2})
    damaged = store.path("ef" * 32)
    damaged.parent.mkdir()
    damaged.with_name(damaged.name + ".damaged").write_bytes(b"?")
    (store.path(KEY).parent / f".{KEY}.safetensors.x1y2").write_bytes(b"half")
    (store.folder / "attacks").mkdir()
    (store.folder / "attacks" / "mine.safetensors").write_bytes(b"other")
    found = [(entry.kind, entry.facts.get("epoch"), entry.key[:2]) for entry in store.entries()]
    assert found == [("left over", None, ".a"), ("state", 4, "ab"), ("share", 2, "cd"), ("damaged", None, "ef")]
    for entry in list(store.entries()):
        store.remove(entry)
    assert list(store.entries()) == []
    assert (store.folder / "attacks" / "mine.safetensors").exists()


def test_a_state_counts_as_used_when_it_is_loaded(store: Store) -> None:
    """But not when it is only verified."""
    os.utime(store.path(KEY), (0, 0))
    store.load(KEY, touch=False)
    assert [entry.used for entry in store.entries()] == [0]
    store.load(KEY)
    assert [entry.used > 0 for entry in store.entries()] == [True]


# --- shared stores --------------------------------------------------------------------------------


@pytest.fixture(params=["memory://shared/store", "file"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Remote:
    """Two of fsspec's file systems, which work without the network."""
    return Remote(request.param if "://" in request.param else (tmp_path / "far").as_uri())


def test_a_shared_store_hands_states_from_machine_to_machine(remote: Remote, tmp_path: Path) -> None:
    """What one wrote the other finds, and keeps a copy of."""
    one, other = Store(tmp_path / "1", remote), Store(tmp_path / "2", remote)
    assert KEY not in other
    one.save(KEY, "state", {"w": torch.arange(3.0)}, {"epoch": 1})
    assert KEY in other
    assert [entry.kind for entry in other.entries()] == ["elsewhere"]
    assert torch.equal(other.load(KEY).tensors["w"], torch.arange(3.0))
    assert [entry.kind for entry in other.entries()] == ["state"]
    one.discard(KEY)
    assert KEY not in Store(tmp_path / "3", remote)


def test_a_shared_store_never_holds_half_a_file(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a file travels it is not there yet; where that fails, nothing is left."""
    one, seen = Store(tmp_path / "1", remote), []
    sent = remote._files.put_file

    def half(source: str, target: str) -> None:
        seen.append(KEY in Store(tmp_path / "2", remote))
        sent(source, target)
        seen.append(KEY in Store(tmp_path / "2", remote))
        if len(seen) == 2:
            raise ConnectionResetError

    monkeypatch.setattr(remote._files, "put_file", half)
    with pytest.raises(BadInput, match="doesn't answer"):
        one.save(KEY, "state", {"w": torch.arange(3.0)}, {})
    assert list(remote.names()) == []
    one.save(KEY, "state", {"w": torch.arange(3.0)}, {})
    assert seen == [False] * 4
    assert [str(name) for name in remote.names()] == [f"ab/{KEY}.safetensors"]


def test_a_rename_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file first, then the folder that names it."""
    flushed: list[Path] = []
    fsync = os.fsync

    def noted(handle: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{handle}").readlink())
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    write_atomically(tmp_path / "file", b"new")
    assert [path.parent if path.is_file() else path for path in flushed][-1] == tmp_path
    assert len(flushed) == 2


def test_a_file_torn_on_its_way_is_lost_not_used(remote: Remote, tmp_path: Path) -> None:
    """It goes, there too, so that the state is computed again."""
    one, other = Store(tmp_path / "1", remote), Store(tmp_path / "2", remote)
    one.save(KEY, "state", {"w": torch.arange(3.0)}, {})
    half = tmp_path / "half"
    half.write_bytes(one.path(KEY).read_bytes()[:-5])
    remote.send(PurePosixPath(one.path(KEY).relative_to(one.folder)), half)
    with pytest.raises(StateLost, match="is damaged"):
        other.load(KEY)
    assert KEY not in other
    with pytest.raises(StateLost, match="is missing"):
        other.load(KEY)


def test_an_address_that_nothing_opens_is_told() -> None:
    """One sentence."""
    with pytest.raises(BadInput, match=r"the store nonsense://x can't be opened .*: install what fsspec needs for it"):
        Remote("nonsense://x")


def test_a_password_in_an_address_is_not_told() -> None:
    """Neither in lists nor in sentences."""
    with pytest.raises(BadInput) as told:
        Remote("nonsense://me:secret@host/x")
    assert "secret" not in str(told.value)
    assert "nonsense://…@host/x" in str(told.value)
