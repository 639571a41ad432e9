"""The store: whole or not at all, checksummed, free of pickle."""

from pathlib import Path

import pytest
import torch

from generalist.errors import BadInput
from generalist.store import Store, tensors_digest, write_atomically, write_tensors

KEY = "ab" * 32


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with one state."""
    store = Store(tmp_path / "store")
    store.save(KEY, {"w": torch.arange(6.0).view(2, 3), "n": torch.tensor(3)}, {"epoch": 4, "history": [1.5]})
    return store


def test_what_is_saved_is_loaded(store: Store) -> None:
    """Tensors with shape and dtype, and facts."""
    found = store.load(KEY)
    assert torch.equal(found.tensors["w"], torch.arange(6.0).view(2, 3))
    assert found.tensors["n"].dtype == torch.int64
    assert found.facts == {"epoch": 4, "history": [1.5]}
    assert KEY in store
    assert "cd" * 32 not in store


@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_a_truncated_state_is_refused(store: Store, length: int) -> None:
    """One sentence names the file and the mend."""
    path = store.path(KEY)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(BadInput, match=r"state file .* is damaged .*: delete it, and the next run computes it again"):
        store.load(KEY)


def test_every_changed_byte_of_a_tensor_is_seen(store: Store) -> None:
    """safetensors does not check content; the checksum does."""
    path = store.path(KEY)
    whole = path.read_bytes()
    for offset in range(len(whole) - 32, len(whole)):
        path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1 :])
        with pytest.raises(BadInput, match="checksum differs"):
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
    assert len({tensors_digest(own) for own in tensors}) == len(tensors)


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
        Store(tmp_path / "store").save(KEY, {}, {})
