"""Weights files of other programs, told apart from damaged ones of ours by their first bytes."""

import json
import stat
from pathlib import Path

from generalist.errors import BadInput

_HEADER = 100_000_000  # bytes, as safetensors allows
_OTHERS = {b"PK\x03\x04": "a zip file such as torch.save writes", b"\x80": "a pickle such as torch.save wrote"}


def refuse_foreign(path: Path, *, mend: str, others: str = "") -> None:
    """Let pass what may be a weights file of ours, by its first bytes; nothing in it is executed.

    Args:
        path: the file.
        mend: what a user can do about another one.
        others: what else there is for files of other programs, in words that go on from `mend`.

    Raises:
        BadInput: the file is missing, no regular file, or was written by another program.
    """
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):  # a FIFO would keep us waiting
            raise BadInput(f"{path} is not a regular file: {mend}")
        with path.open("rb") as file:
            start = file.read(8)
            size = int.from_bytes(start, "little")
            header = file.read(size) if 2 <= size <= min(_HEADER, about.st_size) else b""
    except FileNotFoundError:
        raise BadInput(f"the weights {path} are missing: {mend}") from None
    except OSError as error:
        raise BadInput(f"{path} can't be read ({error.strerror}): {mend}") from None
    for magic, kind in _OTHERS.items():
        if start.startswith(magic):
            raise BadInput(
                f"{path} was not written by generalist, it is {kind}, and that may run code when it is opened:"
                f" {mend}{others}"
            )
    try:
        note = json.loads(header).get("__metadata__", {})
        ours = isinstance(note, dict) and "generalist" in note
        kind = "safetensors of another program"
    except (ValueError, AttributeError, RecursionError):
        ours, kind = False, "no whole safetensors file"
    if not ours:
        raise BadInput(f"{path} was not written by generalist, or is damaged ({kind}): {mend}{others}")
