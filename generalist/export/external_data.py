"""Weights that an ONNX file keeps in other files: read from its own folder, and from nowhere else. No torch here.

ONNX Runtime looks for them in the current directory when it is given a model's bytes, where another model's may lie.
"""

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import onnx
from google.protobuf.message import Message  # type: ignore[import-untyped]  # it comes without types
from onnx import TensorProto

from generalist.errors import BadInput
from generalist.untrusted import read

LIMIT = 2**31 - 1
"""Bytes of a model with all its weights: more than that protobuf can't carry."""

_ONE_FILE = "`python -c \"import onnx; onnx.save(onnx.load('net.onnx'), 'one.onnx')\"` makes one file of a model"
_BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}  # packed; others fill whole bytes


def content(path: Path, *, mend: str) -> bytes:
    """Return the bytes of a regular file.

    Raises:
        BadInput: there is none, it is no regular file, or it has more than `LIMIT` bytes.
    """
    try:
        return read(path, most=LIMIT)
    except OSError as error:
        raise BadInput(f"{path} can't be read ({error.strerror}): {mend}") from None


def outside(model: onnx.ModelProto) -> list[TensorProto]:
    """Return the tensors of a model whose data lies in other files, wherever in the model they are."""
    return [tensor for tensor in _tensors(model) if tensor.data_location == TensorProto.EXTERNAL]


def embed(model: onnx.ModelProto, path: Path, *, room: int = LIMIT) -> dict[str, str]:
    """Put all data that lies in other files into the model.

    Args:
        model: changed in place.
        path: its file; a link is followed, as the weights lie beside the file itself.
        room: bytes, at most.

    Returns:
        SHA-256 (hex) of each of those files, by its place below the folder.

    Raises:
        BadInput: a file leads out of the folder, is missing, no regular file or too short, or there is no room.
    """
    folder, files = path.resolve().parent, dict[Path, bytes]()
    for tensor in outside(model):
        entries = {entry.key: entry.value for entry in tensor.external_data}
        place = _place(folder, entries.get("location", ""), path)
        if place not in files:
            files[place] = content(place, mend=f"put the weights of {path} there, or export it again")
        start, size = _number(entries.get("offset", "0")), _number(entries.get("length", str(_size(tensor))))
        if start + size > len(files[place]):
            raise BadInput(
                f"{place} is too short for {path}, or the weights of another model: put its own there, or export again"
            )
        room -= size
        if room < 0:
            raise BadInput(f"{path} has more than {LIMIT} bytes of weights, and no more are read: export a smaller one")
        tensor.raw_data = files[place][start : start + size]
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
    return {
        place.relative_to(folder).as_posix(): hashlib.sha256(data).hexdigest() for place, data in sorted(files.items())
    }


def _tensors(message: Message) -> Iterator[TensorProto]:
    """Yield all tensors below a message: initializers, constants, sparse ones, those of subgraphs and functions."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for part in (value,) if isinstance(value, Message) else value:
            if isinstance(part, TensorProto):
                yield part
            else:
                yield from _tensors(part)


def _place(folder: Path, location: str, path: Path) -> Path:
    """Return the file of a location, links followed."""
    written = PurePosixPath(location)
    try:
        place = (folder / written).resolve()
        inside = not written.is_absolute() and ".." not in written.parts and place.is_relative_to(folder)
    except (OSError, ValueError, RuntimeError):  # a null character, a loop of links
        inside = False
    if not inside:
        raise BadInput(
            f"{path} keeps weights in {location[:200]!r}, which leads out of its folder: copy them beside it;"
            f" {_ONE_FILE}"
        )
    if not place.exists():
        raise BadInput(
            f"{path} keeps weights in {location[:200]!r}, and there is no such file beside it: put it there;"
            f" {_ONE_FILE}"
        )
    return place


def _number(written: str) -> int:
    """Return a number of bytes; more than any file has where it is none."""
    return int(written) if written.isascii() and written.isdigit() and len(written) < 20 else LIMIT + 1


def _size(tensor: TensorProto) -> int:
    """Return the bytes of a tensor that doesn't tell its length; more than any file has where its shape is false."""
    if any(size < 0 for size in tensor.dims) or tensor.data_type not in TensorProto.DataType.values():
        return LIMIT + 1
    name = TensorProto.DataType.Name(tensor.data_type)
    if name in {"UNDEFINED", "STRING"}:
        return LIMIT + 1
    bits: int = _BITS.get(name) or 8 * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    count: int = math.prod(tensor.dims)
    return -(-count * bits // 8)
