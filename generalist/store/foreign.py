"""Weights files of other programs, told apart from damaged ones of ours by their first bytes."""

from pathlib import Path

from generalist.errors import BadInput
from generalist.gate import opened, parse_json

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
        with opened(path) as file:
            start = file.read(8)
            size = int.from_bytes(start, "little")
            header = file.read(size) if 2 <= size <= min(_HEADER, path.stat().st_size) else b""
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
        note = parse_json(header).get("__metadata__", {})
        ours = isinstance(note, dict) and "generalist" in note
        kind = "safetensors of another program"
    except (ValueError, AttributeError):
        ours, kind = False, "no whole safetensors file"
    if not ours:
        raise BadInput(f"{path} was not written by generalist, or is damaged ({kind}): {mend}{others}")
