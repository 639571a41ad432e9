"""Whether results can be written where they are to go, found out before any work."""

import tempfile
from pathlib import Path

from generalist.errors import BadInput


def check_writable(folder: Path) -> None:
    """Refuse an output folder that can't be written, before any work.

    Raises:
        BadInput: it is a file, a link to nowhere, lies below one, or may not be written.
    """
    _check(folder, f"results can't be written to {folder}", "folder")


def check_file(path: Path, *, suffix: str = "") -> None:
    """Refuse an output file that can't be written, before any work.

    Args:
        path: the file.
        suffix: such as `.npz`: what is there and has another one is not replaced.

    Raises:
        BadInput: it is a folder, a device, a link to nowhere or another file than of that suffix, or its folder can't
            be made or may not be written.
    """
    sentence = f"{path} can't be written"
    if _is_there(path, sentence, "file"):
        if not path.is_file():
            raise BadInput(f"{sentence}: it is {'a folder' if path.is_dir() else 'no regular file'}; name another file")
        if suffix and path.suffix.lower() != suffix:
            raise BadInput(f"{sentence}: another file than of {suffix} lies there; name another file")
    _check(path.parent, sentence, "file")


def _check(folder: Path, sentence: str, kind: str) -> None:
    place = folder.absolute()
    above = next(own for own in (place, *place.parents) if _is_there(own, sentence, kind))
    if not above.is_dir():
        raise BadInput(f"{sentence}: {above} is a file; remove it or name another {kind}")
    try:
        tempfile.TemporaryFile(dir=above).close()  # also of those who may write anywhere, but not on this file system
    except OSError as error:
        raise BadInput(f"{sentence}: {above} may not be written to ({error.strerror}); name another {kind}") from None


def _is_there(place: Path, sentence: str, kind: str) -> bool:
    try:
        there = place.exists()
        lost = not there and place.is_symlink()
    except OSError as error:  # such as a name that is too long
        raise BadInput(f"{sentence} ({error.strerror}): name another {kind}") from None
    if lost:
        raise BadInput(f"{sentence}: {place} is a link to nowhere; remove it or name another {kind}")
    return there
