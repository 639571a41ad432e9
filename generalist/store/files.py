"""Files of tensors and facts: written atomically, checksummed, free of pickle, told apart from those of others."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from generalist.atomic_files import write_atomically
from generalist.errors import BadInput
from generalist.untrusted import open_regular, parse_json, printable

_FACTS = "generalist"
"""The one metadata entry of a file: safetensors keeps several in no fixed order."""
_DAMAGE = (SafetensorError, OSError, LookupError, TypeError, AttributeError, ValueError, RuntimeError)
"""What a file that is not whole makes safetensors and JSON raise."""
_HEADER = 100_000_000  # bytes, as safetensors allows
_OTHERS = {b"PK\x03\x04": "a zip file such as torch.save writes", b"\x80": "a pickle such as torch.save wrote"}


@dataclass(frozen=True)
class Stored:
    """What lies in a file: tensors by name, and plain facts."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 (hex) over names, dtypes, shapes and bytes, independent of the order of names."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write a checksummed safetensors file atomically; equal input gives equal bytes.

    Raises:
        BadInput: the folder can't be written.
    """
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    note = json.dumps({"facts": facts, "digest": _digest(ready, facts)}, sort_keys=True)
    write_atomically(path, to_bytes(ready, metadata={_FACTS: note}))


def read_tensors(path: Path, *, mend: str) -> Stored:
    """Read what `write_tensors` wrote; `mend` tells a user what to do about a damaged file.

    Raises:
        BadInput: the file is missing, truncated or altered.
    """
    try:
        with _opened(path) as file:
            facts, expected = _note(file)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
    except FileNotFoundError:
        raise BadInput(f"the state file {path} is missing: {mend}") from None
    except _DAMAGE as error:
        raise BadInput(f"the state file {path} is damaged ({_short(error)}): {mend}") from None
    if _digest(tensors, facts) != expected:
        raise BadInput(f"the state file {path} is damaged (its checksum differs): {mend}")
    return Stored(tensors, facts)


def read_facts(path: Path) -> dict[str, Any]:
    """Return the facts alone, without their checksum being compared: quick, for lists of files.

    Raises:
        BadInput: the file is missing or not one of ours.
    """
    try:
        with _opened(path) as file:
            return _note(file)[0]
    except _DAMAGE as error:
        raise BadInput(f"the state file {path} is damaged ({_short(error)})") from None


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
        with open_regular(path) as file:
            start = file.read(8)
            size = int.from_bytes(start, "little")
            header = file.read(size) if 2 <= size <= min(_HEADER, path.stat().st_size) else b""
    except FileNotFoundError:
        raise BadInput(f"the weights {path} are missing: {mend}") from None
    except OSError as error:
        raise BadInput(f"{path} can't be read ({error.strerror}): {mend}") from None
    try:
        note = parse_json(header).get("__metadata__", {})
        ours = isinstance(note, dict) and "generalist" in note
        kind = "safetensors of another program"
    except (ValueError, AttributeError):
        ours, kind = False, "no whole safetensors file"
    if ours:  # also where the length of its header begins as a pickle does
        return
    for magic, other in _OTHERS.items():
        if start.startswith(magic):
            raise BadInput(
                f"{path} was not written by generalist, it is {other}, and that may run code when it is opened:"
                f" {mend}{others}"
            )
    raise BadInput(f"{path} was not written by generalist, or is damaged ({kind}): {mend}{others}")


def _opened(path: Path) -> Any:
    """Return the file, for safetensors, which would wait for the writer of a FIFO."""
    with open_regular(path):
        return safe_open(path, framework="pt")


def _note(file: Any) -> tuple[dict[str, Any], str]:
    """Return the facts and checksum."""
    note = parse_json((file.metadata() or {})[_FACTS])
    facts, expected = note["facts"], note["digest"]
    if not isinstance(facts, dict):
        raise TypeError("its facts are no object")
    return facts, expected


def _short(error: Exception) -> str:
    message = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return printable(message)[:200]


def _digest(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) of everything in a file."""
    facts_json = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(f"{tensors_digest(tensors)} {facts_json}".encode()).hexdigest()
