"""Image files below a folder: the one walk of `prepare` and `predict`, and what it leaves out. No torch here."""

import functools
import inspect
import os
import stat
import unicodedata
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageFile

from generalist.untrusted import printable

_MANY = {
    "hidden file or folder": "hidden files or folders",
    "link that leads nowhere or in a circle": "links that lead nowhere or in a circle",
    "link back to a folder that it lies in": "links back to a folder that they lie in",
    "link to a folder that is read already": "links to folders that are read already",
    "pipe, socket or device": "pipes, sockets or devices",
    "image outside of class folders": "images outside of class folders",
}
HIDDEN, NOWHERE, CIRCLE, AGAIN, SPECIAL, LOOSE = _MANY
"""What is left out, by kind; several of it are called as above."""
_NO_SUFFIX = "without a suffix"
_SUFFIXES_TOLD = 6
_SPLITS = ("train", "test")
# Pillow starts Ghostscript for the first, opens whatever lies in the second, and has no decoder for the third.
_UNREADABLE = {"EPS", "IPTC", "MPEG"}

Parts = tuple[str, ...]
_Id = tuple[int, int]


@dataclass(frozen=True)
class ImageListing:
    """What lies below a folder.

    Attributes:
        root: the folder.
        files: image files, known by their suffix, in the order of their names; among them links that lead nowhere.
        folders: that were read, by the parts of their names below `root`.
        left_out: what was left out, by path: its kind, or the suffix of a file that is no image.
        outward: links that lead out of `root` and were followed.
    """

    root: Path
    files: list[Path] = field(default_factory=list)
    folders: set[Parts] = field(default_factory=set)
    left_out: dict[Path, str] = field(default_factory=dict)
    outward: list[Path] = field(default_factory=list)

    def below(self, path: Path) -> Parts:
        """Return the parts of a path's name below the root."""
        return path.parts[len(self.root.parts) :]

    def told(self) -> str:
        """Return one sentence: what was left out, by number and kind, and the links out of the folder; or nothing."""
        parts = []
        if self.left_out:
            parts.append(f"left out {told(self.left_out.values())}")
        if self.outward:
            many = _counted(len(self.outward), "link out of it, which was read", "links out of it, which were read")
            parts.append(many)
        return f"{printable(self.root)}: {'; '.join(parts)}" if parts else ""


def find(folder: Path) -> ImageListing:
    """Find all images below a folder, in nested folders and through links.

    Hidden files and folders, special files, and files that Pillow can't read by their suffix are left out. A folder
    to which several links lead is read once within each class (a folder below the root, or below its `train` or
    `test`), so links in a circle come to an end.
    """
    return _Walk(folder).found()


def suffixes() -> frozenset[str]:
    """Return the suffixes of the files that Pillow reads here, in small letters."""
    known = {*formats(), "MPO"}  # which is opened as JPEG
    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in known)


@functools.cache
def formats() -> tuple[str, ...]:
    """Return the formats with a file suffix that Pillow decodes by itself, in the order in which it tries them."""
    Image.preinit()
    Image.init()
    named = {*Image.registered_extensions().values()} - _UNREADABLE
    return tuple(name for name in Image.ID if name in named and not _is_stub(name))


def is_utf8(path: Path | str) -> bool:
    """Return whether the name can be written as text."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def composed(parts: Iterable[str]) -> Parts:
    """Return the names in the form in which they are compared (NFC): file systems give the same name in several."""
    return tuple(unicodedata.normalize("NFC", part) for part in parts)


def told(kinds: Iterable[str]) -> str:
    """Return what was left out by number and kind: `1 link back to …, 3 files that are no images for Pillow (.txt)`."""
    counts = Counter(kinds)
    parts = [_counted(counts.pop(kind), kind, many) for kind, many in _MANY.items() if kind in counts]
    if counts:
        common = counts.most_common()
        listed = [suffix if len(common) == 1 else f"{number:,} {suffix}" for suffix, number in common[:_SUFFIXES_TOLD]]
        more = ["…"] if len(common) > _SUFFIXES_TOLD else []
        files = _counted(counts.total(), "file that is no image for Pillow", "files that are no images for Pillow")
        parts.append(f"{files} ({', '.join(listed + more)})")
    return ", ".join(parts)


class _Walk:
    """Real folders first, then what links lead to: what is read under its own name isn't read under a link's."""

    def __init__(self, root: Path) -> None:
        self._found = ImageListing(root)
        self._real = os.path.realpath(root)
        self._above = {_identity(path) for path in (Path(self._real), *Path(self._real).parents)}
        self._read: dict[Parts, set[_Id | None]] = {}  # by class
        self._folders, self._links = [root], deque[Path]()
        self._suffixes = suffixes()

    def found(self) -> ImageListing:
        while self._folders or self._links:
            folder = self._folders.pop() if self._folders else self._links.popleft()
            if kind := self._read_before(folder):
                self._found.left_out[folder] = kind
                continue
            try:
                entries = sorted(folder.iterdir())
            except OSError:
                self._found.files.append(folder)  # whoever reads it, says why it can't be
                continue
            for entry in entries:
                self._sort(entry)
        self._found.files.sort(key=lambda path: (composed(self._found.below(path)), path.parts))
        return self._found

    def _read_before(self, folder: Path) -> str | None:
        parts = self._found.below(folder)
        if not parts:
            return None
        unit = parts[: 2 if parts[0] in _SPLITS else 1]
        around = {_identity(self._found.root.joinpath(*parts[:depth])) for depth in range(1, len(parts))}
        read, identity = self._read.setdefault(unit, set()), _identity(folder)
        if identity in self._above | around:
            return CIRCLE
        if identity in read:
            return AGAIN
        read.add(identity)
        self._found.folders.add(parts)
        return None

    def _sort(self, path: Path) -> None:
        """Put an entry where it belongs."""
        listing = self._found
        if path.name.startswith("."):
            listing.left_out[path] = HIDDEN
            return
        link = path.is_symlink()
        try:
            mode = path.stat().st_mode
        except OSError:
            mode = None
        suffix = path.suffix.lower()
        if mode is None and not link:
            listing.files.append(path)  # its name is too long, or it is gone: said by whoever reads it
        elif mode is not None and stat.S_ISDIR(mode):
            (self._links if link else self._folders).append(path)
        elif mode is not None and not stat.S_ISREG(mode):
            listing.left_out[path] = SPECIAL
        elif suffix not in self._suffixes:
            listing.left_out[path] = NOWHERE if mode is None else printable(suffix) or _NO_SUFFIX
            return
        else:
            listing.files.append(path)
        if link and mode is not None and not f"{os.path.realpath(path)}/".startswith(f"{self._real.rstrip('/')}/"):
            listing.outward.append(path)


def _identity(folder: Path) -> _Id | None:
    try:
        status = folder.stat()
    except OSError:  # it can't be listed either, which is told
        return None
    return status.st_dev, status.st_ino


def _is_stub(name: str) -> bool:
    """Return whether Pillow knows the format but leaves its pixels to others."""
    opener = Image.OPEN[name][0]
    return inspect.isclass(opener) and issubclass(opener, ImageFile.StubImageFile)


def _counted(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
