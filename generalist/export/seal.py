"""A file's metadata, and two digests in it that show any change. No torch here.

`graph_digest` is the SHA-256 of the serialised model with its metadata cleared, `metadata_digest` that of
all other metadata. A file is intact if taking it apart and sealing the parts again gives the same bytes.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # it comes without types

from generalist.errors import BadInput

GRAPH, METADATA = "graph_digest", "metadata_digest"


@dataclass(frozen=True)
class Parts:
    """An ONNX file taken apart.

    Attributes:
        content: the bytes of the file.
        graph: the model without its metadata.
        metadata: all of it, digests included.
    """

    content: bytes
    graph: onnx.ModelProto
    metadata: dict[str, str]


def sealed(graph: onnx.ModelProto, metadata: Mapping[str, str]) -> bytes:
    """The file's bytes: the model with `metadata` and the two digests as its only metadata, in order of keys.

    Raises:
        ValueError: `metadata` has a key that is reserved for a digest.
    """
    for key in (GRAPH, METADATA):
        if key in metadata:
            raise ValueError(f"the metadata key {key} is reserved for a digest made here")
    everything = {**metadata, GRAPH: _graph_digest(graph)}
    everything[METADATA] = _metadata_digest(everything)
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    model.ClearField("metadata_props")
    for key in sorted(everything):
        model.metadata_props.add(key=key, value=everything[key])
    return _serialised(model)


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of an ONNX file, unchecked.

    Raises:
        BadInput: there is no such file, or it is not ONNX.
    """
    return _taken_apart(path).metadata


def graph_digest(path: Path) -> str:
    """SHA-256 (hex) of the model in an ONNX file with its metadata cleared: of graph and weights alone.

    Raises:
        BadInput: there is no such file, or it is not ONNX.
    """
    return _graph_digest(_taken_apart(path).graph)


def verify(path: Path) -> dict[str, str]:
    """The metadata of an intact file of ours.

    Raises:
        BadInput: there is no such file, it is not ONNX, it was not sealed here, or a byte of it was changed.
    """
    return intact(path).metadata


def intact(path: Path) -> Parts:
    """As `verify`; the parts of the file, for those who run it."""
    parts = _taken_apart(path)
    given = {key: value for key, value in parts.metadata.items() if key not in (GRAPH, METADATA)}
    if parts.metadata.keys() != {*given, GRAPH, METADATA}:
        raise BadInput(f"{path} carries no digests: it was not exported by generalist, or its metadata was removed")
    if _graph_digest(parts.graph) != parts.metadata[GRAPH]:
        raise BadInput(f"{path} was changed after export (its graph digest differs): export or download it again")
    if sealed(parts.graph, given) != parts.content:
        raise BadInput(f"{path} was changed after export (its metadata digest differs): export or download it again")
    _check(parts, path)
    return parts


def valid(path: Path) -> Parts:
    """The parts of a valid ONNX file from anywhere; one with our digests must be intact.

    Raises:
        BadInput: there is no such file, it is not a valid ONNX model, or it was sealed here and changed since.
    """
    parts = _taken_apart(path)
    if parts.metadata.keys() & {GRAPH, METADATA}:
        return intact(path)
    _check(parts, path)
    return parts


def _check(parts: Parts, path: Path) -> None:
    try:
        onnx.checker.check_model(parts.content, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BadInput(f"{path} is not a valid ONNX model ({_first_line(error)}): export it again") from None


def _taken_apart(path: Path) -> Parts:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path} can't be read ({error.strerror}): name an ONNX file such as model.onnx") from None
    try:
        graph = onnx.ModelProto.FromString(content)
        metadata = {entry.key: entry.value for entry in graph.metadata_props}
        # protobuf gives text that is not UTF-8 as bytes
        valid = graph.HasField("graph") and all(isinstance(text, str) for pair in metadata.items() for text in pair)
    except DecodeError:
        valid = False
    if not valid:
        raise BadInput(f"{path} is not an ONNX model, or is cut short: export or download it again")
    graph.ClearField("metadata_props")
    return Parts(content, graph, metadata)


def _graph_digest(model: onnx.ModelProto) -> str:
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    bare.ClearField("metadata_props")
    return hashlib.sha256(_serialised(bare)).hexdigest()


def _metadata_digest(metadata: Mapping[str, str]) -> str:
    text = json.dumps(dict(metadata), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _serialised(model: onnx.ModelProto) -> bytes:
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".: ")
