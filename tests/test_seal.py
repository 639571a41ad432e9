"""The digests in an exported file: whatever is changed, it shows."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from generalist.errors import BadInput
from generalist.export.integrity import GRAPH, METADATA, graph_digest, read_metadata, verify, with_digests
from tests import onnx_models

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
LINEAGE = {"class_names": '["cat","dög","owl","yak"]', "git_commit": "0" * 40}


@pytest.fixture(scope="module")
def content() -> bytes:
    """An intact file."""
    return with_digests(onnx_models.linear(), LINEAGE)


@pytest.fixture
def path(tmp_path: Path, content: bytes) -> Path:
    """An intact file on disk."""
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    return path


def test_an_intact_file_gives_its_metadata(path: Path) -> None:
    """What was sealed is read back, with the two digests."""
    assert verify(path) == read_metadata(path)
    assert verify(path) == {**LINEAGE, GRAPH: graph_digest(path), METADATA: verify(path)[METADATA]}


@given(metadata=st.dictionaries(TEXT.filter(lambda key: key not in (GRAPH, METADATA)), TEXT, max_size=5))
def test_any_strings_can_be_carried(metadata: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keys and values of any characters survive; the order in which they were given leaves no trace."""
    path = tmp_path_factory.mktemp("seal") / "model.onnx"
    path.write_bytes(with_digests(onnx_models.linear(), metadata))
    assert {key: value for key, value in verify(path).items() if key not in (GRAPH, METADATA)} == metadata
    assert with_digests(onnx_models.linear(), dict(reversed(metadata.items()))) == path.read_bytes()


@pytest.mark.parametrize("key", [GRAPH, METADATA])
def test_the_keys_of_the_digests_are_reserved(key: str) -> None:
    """Nobody else writes a digest."""
    with pytest.raises(ValueError, match=f"metadata key {key} is reserved"):
        with_digests(onnx_models.linear(), {key: "mine"})


def test_the_graph_digest_is_of_graph_and_weights_alone(path: Path) -> None:
    """Other metadata, the same digest; another weight, another digest."""
    digest = graph_digest(path)
    path.write_bytes(with_digests(onnx_models.linear(), {"other": "metadata"}))
    assert graph_digest(path) == digest
    weight = onnx_models.WEIGHT.copy()
    weight[0, 0] = np.nextafter(weight[0, 0], np.float32(9))
    path.write_bytes(with_digests(onnx_models.linear(weight=weight), LINEAGE))
    assert graph_digest(path) != digest


def test_sealing_leaves_the_model_as_it_was() -> None:
    """The caller's model gets no metadata, and its own is not carried along."""
    model = onnx_models.linear()
    model.metadata_props.add(key="stale", value="1")
    before = model.SerializeToString()
    assert b"stale" not in with_digests(model, LINEAGE)
    assert model.SerializeToString() == before


def test_any_changed_byte_is_found(path: Path, content: bytes) -> None:
    """One flipped bit in graph, weights, metadata or digests is refused, and so is one missing or added byte."""
    start = content.index(b"class_names") - 8
    offsets = [*range(0, start, 7), *range(start, len(content))]
    for offset in offsets:
        changed = bytearray(content)
        changed[offset] ^= 1 << (offset % 8)
        path.write_bytes(changed)
        with pytest.raises(BadInput, match=r"model\.onnx"):
            verify(path)
    for other in (content[:-1], content[: len(content) // 2], content[:10], content[1:], content + b"\0"):
        path.write_bytes(other)
        with pytest.raises(BadInput, match=r"model\.onnx"):
            verify(path)


def test_another_encoding_of_the_same_content_is_found(path: Path, content: bytes) -> None:
    """Metadata in another order, twice, or with a digest computed anew over a change: none passes."""
    for change in ("order", "twice", "swapped"):
        model = onnx.ModelProto.FromString(content)
        entries = [(entry.key, entry.value) for entry in model.metadata_props]
        model.ClearField("metadata_props")
        if change == "order":
            entries.reverse()
        elif change == "twice":
            entries.append(entries[0])
        else:
            entries = [(key, "1" * 40 if key == "git_commit" else value) for key, value in entries]
        for key, value in entries:
            model.metadata_props.add(key=key, value=value)
        path.write_bytes(model.SerializeToString(deterministic=True))
        with pytest.raises(BadInput, match="metadata digest differs"):
            verify(path)


def test_a_changed_graph_is_called_so(path: Path, content: bytes) -> None:
    """The sentence says what was changed and how to mend it."""
    path.write_bytes(content.replace(b"made_by_hand", b"made_by_head"))
    with pytest.raises(BadInput, match=r"model\.onnx was changed after export \(its graph digest.*download it again"):
        verify(path)


def test_a_file_without_digests_is_not_ours(path: Path) -> None:
    """A valid ONNX model of another origin, or with its metadata removed, is refused."""
    path.write_bytes(onnx_models.linear().SerializeToString())
    with pytest.raises(BadInput, match="carries no digests: it was not exported by generalist"):
        verify(path)
    assert read_metadata(path) == {}


@pytest.mark.parametrize(
    "content", [b"", b"hello, world", b"\x08\x0a", b"\xff" * 50], ids=["empty", "text", "ir", "ff"]
)
@pytest.mark.parametrize("reader", [verify, read_metadata, graph_digest])
def test_what_is_not_onnx_is_refused(reader: type, content: bytes, tmp_path: Path) -> None:
    """Files that are no ONNX model are named as such by every reader."""
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"model\.onnx is not an ONNX model, or is cut short"):
        reader(path)


@pytest.mark.parametrize("reader", [verify, read_metadata, graph_digest])
def test_a_missing_file_is_refused(reader: type, tmp_path: Path) -> None:
    """A missing file, or a folder in its place, is named with the reason."""
    with pytest.raises(BadInput, match=r"none\.onnx can't be read \(No such file"):
        reader(tmp_path / "none.onnx")
    with pytest.raises(BadInput, match=r"can't be read \(it is not a regular file\)"):
        reader(tmp_path)


def test_a_seal_does_not_make_a_model_valid(path: Path) -> None:
    """The checker of ONNX has its say after the digests."""
    model = onnx_models.linear()
    model.graph.node[1].input[0] = "nowhere"
    path.write_bytes(with_digests(model, LINEAGE))
    with pytest.raises(BadInput, match=r"model\.onnx is not a valid ONNX model \(.*\): export it again"):
        verify(path)
