"""Files and folders that appear whole, and what killed writers leave: nothing that the next writer doesn't remove."""

import os
from contextlib import suppress
from pathlib import Path

import pytest

from generalist.atomic_files import partial_name, rename, target_of, write_atomically
from generalist.errors import BadInput
from tests.processes import forking


def left_by_a_killed_one(target: Path, *, folder: bool) -> Path:
    """Leave what a process leaves that is killed in the midst of making a target."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        with partial_name(target) as part:
            (part / "deep").mkdir(parents=True) if folder else part.write_bytes(b"half")
            part.with_name(f"{part.name}-wal").write_bytes(b"half")
            os.write(writing, part.name.encode())
            os._exit(9)
    os.waitpid(pid, 0)
    return target.with_name(os.read(reading, 1000).decode())


@forking
@pytest.mark.parametrize("folder", [False, True])
def test_what_a_killed_writer_left_goes_with_the_next(tmp_path: Path, folder: bool) -> None:
    """Also the files beside it; another target's, and that of a writer who lives, stay."""
    target, other = tmp_path / "a[0].bin", tmp_path / "a"
    left, others = left_by_a_killed_one(target, folder=folder), left_by_a_killed_one(other, folder=False)
    assert left.exists()
    assert target_of(left.name) == target.name
    with partial_name(target) as alive:
        alive.write_bytes(b"in the making")
        write_atomically(target, b"whole")
        assert alive.exists()
    assert sorted(tmp_path.iterdir()) == sorted((target, others, others.with_name(f"{others.name}-wal")))
    assert target.read_bytes() == b"whole"


def test_what_another_machine_makes_is_left_alone(tmp_path: Path) -> None:
    """Its processes have other numbers."""
    with partial_name(tmp_path / "file") as own:
        pass
    foreign = own.with_name(own.name.replace(own.name.split(".")[2][:6], "0" * 6).replace(f"-{os.getpid()}-", "-1-"))
    foreign.write_bytes(b"in the making")
    write_atomically(tmp_path / "file", b"whole")
    assert foreign.exists()


def test_a_failed_writer_leaves_the_old_and_nothing_else(tmp_path: Path) -> None:
    """And a name is only one in the making if it has all of its parts."""
    target = tmp_path / "file"
    write_atomically(target, b"old")
    with suppress(ZeroDivisionError), partial_name(target) as part:
        part.write_bytes(b"half")
        part.write_bytes(bytes(1 // 0))
    with partial_name(target) as part:
        part.write_bytes(b"new")
        rename(part, target)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert target.read_bytes() == b"new"
    for name in ("file", ".file.part", ".file.abcdef-1.part", "file.abcdef-1-12345678.part"):
        assert target_of(name) is None
    with pytest.raises(BadInput, match=r"can't be written .* choose a folder that can"):
        write_atomically(target / "below", b"")
