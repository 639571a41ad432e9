"""Laws of the one walk by which `prepare` and `predict` find images."""

import os
import signal
import socket
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from generalist.data.image_files import ImageListing, find, formats, is_utf8, suffixes
from generalist.untrusted import printable

NAMES = st.sampled_from(
    ["a", "b", "é", "e\u0301x", ".h", "train", "test", "z.png", "y.JPG", "n.txt", "heic.HEIC", "none"]
)


@pytest.fixture(autouse=True)
def _ends() -> Iterator[None]:
    """Nothing here may hang."""

    def stop(number: int, frame: object) -> None:
        raise TimeoutError("the walk hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def touch(*paths: Path) -> None:
    """Files; the walk looks at names alone."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def names(found: ImageListing) -> list[str]:
    """Return the files by their names below the root."""
    return ["/".join(found.below(file)) for file in found.files]


@given(trees=st.sets(st.lists(NAMES, min_size=1, max_size=4).map(tuple), max_size=12))
def test_every_visible_image_is_found_once_in_the_order_of_names(
    trees: set[tuple[str, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A file is found, or it is told why not; nothing else."""
    root = tmp_path_factory.mktemp("tree")
    for parts in trees:
        place = root.joinpath(*parts)
        if not place.exists() and not any(above.is_file() for above in place.parents):
            touch(place)
    found = find(root)
    files = [path.relative_to(root) for path in root.rglob("*") if path.is_file()]
    visible = [file for file in files if not any(part.startswith(".") for part in file.parts)]
    images = [file for file in visible if file.suffix in (".png", ".JPG")]
    assert names(found) == [
        file.as_posix()
        for file in sorted(images, key=lambda file: [unicodedata.normalize("NFC", p) for p in file.parts])
    ]
    for file in set(files) - set(images):
        assert any(root / part in found.left_out for part in (file, *file.parents))
    assert bool(found.told()) == bool(set(files) - set(images))
    assert "\n" not in found.told()


@given(
    links=st.sets(
        st.tuples(st.integers(0, 3), st.sampled_from(["", "0", "1", "2", "3", "..", "gone", "self"])), max_size=8
    )
)
def test_links_in_any_pattern_come_to_an_end(
    links: set[tuple[int, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Each folder's own image is found under its own name, and no image twice within a class."""
    root = tmp_path_factory.mktemp("links") / "root"
    touch(*(root / str(number) / "own.png" for number in range(4)))
    for number, target in links:
        name = f"to-{target or 'root'}"
        (root / str(number) / name).symlink_to(name if target == "self" else root / target)
    found = find(root)
    assert {f"{number}/own.png" for number in range(4)} <= set(names(found))
    for number in range(4):
        within = [file.resolve() for file in found.files if found.below(file)[0] == str(number)]
        assert len(set(within)) == len(within)


def test_a_loop_of_links_is_told(tmp_path: Path) -> None:
    """To itself, to a folder above, and above the root: left out, with a word."""
    root = tmp_path / "root"
    touch(root / "a" / "1.png")
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "higher").symlink_to(tmp_path)
    (root / "a" / "again").symlink_to(root / "a")
    (root / "b").symlink_to("b")
    found = find(root)
    assert names(found) == ["a/1.png"]
    assert "3 links back to a folder that they lie in" in found.told()
    assert "1 link that leads nowhere or in a circle" in found.told()


def test_many_folders_that_link_to_each_other_are_read_in_reasonable_time(tmp_path: Path) -> None:
    """Twelve folders have half a billion paths through links."""
    folders = [tmp_path / "root" / f"{number:02}" for number in range(12)]
    touch(*(folder / "own.png" for folder in folders))
    for folder in folders:
        for other in folders:
            (folder / other.name).symlink_to(other)
    assert len(find(tmp_path / "root").files) == 12 * 12


def test_links_are_followed_and_those_out_of_the_folder_are_told(tmp_path: Path) -> None:
    """A linked class, linked files, and a linked root."""
    root, cache = tmp_path / "root", tmp_path / ".cache"
    touch(root / "a" / "1.png", cache / "files" / "d41d", cache / "class" / "nested" / "3.png")
    (root / "a" / "2.png").symlink_to(cache / "files" / "d41d")
    (root / "b").symlink_to(cache / "class")
    (root / "c").symlink_to("a")
    (tmp_path / "linked").symlink_to(root)
    for given_root in (root, tmp_path / "linked"):
        found = find(given_root)
        assert names(found) == ["a/1.png", "a/2.png", "b/nested/3.png", "c/1.png", "c/2.png"]
        assert found.told() == f"{given_root}: 3 links out of it, which were read"  # that in a is also in c


def test_special_files_are_left_out_and_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe, a socket, a link to a device."""
    touch(tmp_path / "1.png")
    os.mkfifo(tmp_path / "2.png")
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    with socket.socket(socket.AF_UNIX) as own:
        own.bind("3.png")
        (tmp_path / "4.png").symlink_to("/dev/zero")
        found = find(tmp_path)
    assert names(found) == ["1.png"]
    assert "3 pipes, sockets or devices" in found.told()


def test_what_is_left_out_is_counted_by_kind(tmp_path: Path) -> None:
    """Hidden ones, and files by their suffix."""
    touch(*(tmp_path / name for name in (".a.png", ".b/c.png", "1.txt", "2.txt", "3.HEIC", "plain", "4.png")))
    assert find(tmp_path).told() == (
        f"{tmp_path}: left out 2 hidden files or folders, 4 files that are no images for Pillow"
        " (2 .txt, 1 .heic, 1 without a suffix)"
    )
    touch(*(tmp_path / f"x.s{number}" for number in range(9)))
    assert find(tmp_path).told().endswith(", …)")


@pytest.mark.parametrize(
    "suffix",
    [
        "png",
        "PNG",
        "jfif",
        "jpe",
        "tga",
        "jp2",
        "avif",
        "ico",
        "jpg",
        "jpeg",
        "gif",
        "bmp",
        "webp",
        "tif",
        "tiff",
        "ppm",
        "mpo",
    ],
)
def test_the_suffixes_are_those_that_pillow_reads(tmp_path: Path, suffix: str) -> None:
    """In capitals, too."""
    touch(tmp_path / f"1.{suffix}")
    assert len(find(tmp_path).files) == 1


def test_formats_that_pillow_only_knows_by_name_are_not_read() -> None:
    """No decoder, or one that starts another program."""
    assert suffixes().isdisjoint({".heic", ".pdf", ".h5", ".grib", ".mpg", ".eps", ".ps", ".txt", ""})
    assert {Image.registered_extensions()[suffix] for suffix in suffixes()} <= {*formats(), "MPO"}


def test_a_folder_that_can_not_be_listed_is_left_to_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes in place of its files, so that nothing vanishes."""
    touch(tmp_path / "a" / "1.png", tmp_path / "b" / "2.png")
    listed = Path.iterdir

    def closed(path: Path) -> Iterator[Path]:
        if path.name == "a":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", closed)
    assert names(find(tmp_path)) == ["a", "b/2.png"]


def test_any_name_can_be_shown(tmp_path: Path) -> None:
    """Bytes that are no UTF-8, control characters and line breaks become escapes; the rest stays."""
    name = os.fsdecode(b"gar\xe7on \x1b[1m\n")
    assert printable(name) == r"gar\xe7on \x1b[1m\n"
    assert printable("é 日本 \u2028 \ud800") == r"é 日本 \u2028 \ud800"
    assert not is_utf8(name)
    assert is_utf8("é")


@given(st.text(st.characters(), max_size=20))
def test_shown_names_are_one_line_of_utf_8(name: str) -> None:
    """Whatever characters are in them."""
    assert len(printable(name).encode().decode().splitlines()) <= 1
