"""A file's metadata, and two digests in it that show any change. No torch here.

`graph_digest` is the SHA-256 of the serialised model with its metadata cleared, `metadata_digest` that of
all other metadata. A file is intact if taking it apart and sealing the parts again gives the same bytes.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # it comes without types

from generalist.errors import BadInput
from generalist.export import external_data

GRAPH, METADATA = "graph_digest", "metadata_digest"


@dataclass(frozen=True)
class Parts:
    """An ONNX file taken apart.

    Attributes:
        content: the bytes of the file, or of one file with all its weights where they lie in several.
        graph: the model without its metadata.
        metadata: all of it, digests included.
        digest: SHA-256 (hex) of the file; where weights lie in other files, of the digests of all of them by name.
    """

    content: bytes
    graph: onnx.ModelProto
    metadata: dict[str, str]
    digest: str


def with_digests(graph: onnx.ModelProto, metadata: Mapping[str, str]) -> bytes:
    """Return the file's bytes: the model with `metadata` and the two digests as its only metadata, in order of keys.

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
    """Return the metadata of an ONNX file, unchecked.

    Raises:
        BadInput: there is no such file, or it is not ONNX.
    """
    return _readable(_taken_apart(path).metadata, path)


def graph_digest(path: Path) -> str:
    """Return the SHA-256 (hex) of the model in an ONNX file with its metadata cleared: of graph and weights alone.

    Raises:
        BadInput: there is no such file, or it is not ONNX.
    """
    return _graph_digest(_taken_apart(path).graph)


def verify(path: Path) -> dict[str, str]:
    """Return the metadata of an intact file of ours.

    Raises:
        BadInput: there is no such file, it is not ONNX, it was not sealed here, or a byte of it was changed.
    """
    return intact(path).metadata


def intact(path: Path) -> Parts:
    """Verify as `verify`, and return the parts of the file, for those who run it."""
    parts = _taken_apart(path)
    _unchanged(parts, path)
    check(parts.content, path)
    return parts


def from_anywhere(path: Path) -> Parts:
    """Return the parts of an ONNX file from anywhere, unchecked, with the weights that lie in other files beside it.

    Raises:
        BadInput: there is no such file, it is not ONNX, its weights can't be had, or it was sealed here and changed
            since.
    """
    parts = _taken_apart(path)
    if parts.metadata.keys() & {GRAPH, METADATA}:
        _unchanged(parts, path)
        return parts
    files = external_data.embed(parts.graph, path, room=external_data.LIMIT - len(parts.content))
    if not files:
        return parts
    digest = _metadata_digest({"": parts.digest, **files})
    return Parts(_serialised(parts.graph), parts.graph, parts.metadata, digest)


def check(content: bytes, path: Path) -> None:
    """Let ONNX's checker look at a model without external data; on a malicious one it may never end.

    Raises:
        BadInput: it is not valid.
    """
    try:
        onnx.checker.check_model(content, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BadInput(f"{path} is not a valid ONNX model ({first_line(error)}): export it again") from None


def first_line(error: Exception) -> str:
    """Return what an error says, in one line that a terminal shows as it is."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".: ")
    return "".join(letter if letter.isprintable() else "?" for letter in line[:300])


def _unchanged(parts: Parts, path: Path) -> None:
    given = {key: value for key, value in parts.metadata.items() if key not in (GRAPH, METADATA)}
    if parts.metadata.keys() != {*given, GRAPH, METADATA}:
        raise BadInput(f"{path} carries no digests: it was not exported by generalist, or its metadata was removed")
    if _graph_digest(parts.graph) != parts.metadata[GRAPH]:
        raise BadInput(f"{path} was changed after export (its graph digest differs): export or download it again")
    if with_digests(parts.graph, given) != parts.content:
        raise BadInput(f"{path} was changed after export (its metadata digest differs): export or download it again")
    if external_data.outside(parts.graph):  # no digest is of them
        raise BadInput(f"{path} keeps weights in other files, which no export of generalist does: export it again")
    _readable(parts.metadata, path)


def _readable(metadata: dict[str, str], path: Path) -> dict[str, str]:
    """Return the metadata, checked to hold no JSON that no reader can take."""
    for key, text in metadata.items():
        try:
            with suppress(json.JSONDecodeError):  # plain text
                json.loads(text)
        except (RecursionError, ValueError):  # nested a thousand times, an integer of 5,000 digits
            raise BadInput(
                f"the metadata {key[:80]!r} of {path} was not written by generalist: export or download it again"
            ) from None
    return metadata


def _taken_apart(path: Path) -> Parts:
    content = external_data.content(path, mend="name an ONNX file such as model.onnx")
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
    return Parts(content, graph, metadata, hashlib.sha256(content).hexdigest())


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
