"""Files and folders that appear whole: made under a name beside their own, flushed to disk, then renamed.

Whether they can be is found out before any work, by a `check_…`.

Whoever is killed meanwhile leaves that other name; the next writer of the same file or folder on this machine removes
it. No torch here, so that every command can write like this.
"""

import errno
import hashlib
import os
import re
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from generalist.errors import BadInput

_NAME = re.compile(r"\.(?P<target>.+)\.(?P<host>[0-9a-f]{6})-(?P<pid>\d+)-[0-9a-f]{8}\.part(?P<more>-.*)?")


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all.

    Raises:
        BadInput: the folder can't be made or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial_name(path) as part:
            with part.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.chmod(0o644)
            rename(part, path)
    except OSError as error:
        raise BadInput(f"{path} can't be written ({error.strerror}): {_remedy(error)}") from None


@contextmanager
def partial_name(target: Path) -> Iterator[Path]:
    """Give a name for a file or folder in the making, which `rename` makes its own; what still bears it then goes.

    What killed writers of the same target left goes before. Files whose names go on from it, as SQLite's, go with it.
    """
    _clear(target)
    part = target.with_name(f".{target.name}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        yield part
    finally:
        for left in (part, *part.parent.glob(f"{escape(part.name)}-*")):
            _remove(left)


def target_of(name: str) -> str | None:
    """Return the name of the file or folder that a name in the making belongs to; None where it is none."""
    match = _NAME.fullmatch(name)
    return match["target"] if match else None


def rename(path: Path, target: Path) -> None:
    """Give a file or folder that is flushed its name, for good: a power cut does not bring the old one back."""
    path.replace(target)
    flush(target.parent)


def flush(folder: Path) -> None:
    """Make what was made, renamed and removed in a folder last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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


def _clear(target: Path) -> None:
    for left in target.parent.glob(f".{escape(target.name)}.*.part*"):
        match = _NAME.fullmatch(left.name)
        if match and match["host"] == _host() and not _is_alive(int(match["pid"])):
            _remove(left)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
    shutil.rmtree(path, ignore_errors=True)


def _host() -> str:
    """Return a name of this machine, since its processes have numbers of their own."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _remedy(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "make room on that disk, and the same command goes on from what is stored"
    return "choose a folder that can"


def _check(folder: Path, sentence: str, kind: str) -> None:
    place = folder.absolute()
    above = next(ancestor for ancestor in (place, *place.parents) if _is_there(ancestor, sentence, kind))
    if not above.is_dir():
        raise BadInput(f"{sentence}: {above} is a file; remove it or name another {kind}")
    try:
        tempfile.TemporaryFile(dir=above).close()  # also of those who may write anywhere, but not on this file system
    except OSError as error:
        raise BadInput(f"{sentence}: {above} may not be written to ({error.strerror}); name another {kind}") from None


def _is_there(place: Path, sentence: str, kind: str) -> bool:
    try:
        exists = place.exists()
        lost = not exists and place.is_symlink()
    except OSError as error:  # such as a name that is too long
        raise BadInput(f"{sentence} ({error.strerror}): name another {kind}") from None
    if lost:
        raise BadInput(f"{sentence}: {place} is a link to nowhere; remove it or name another {kind}")
    return exists
