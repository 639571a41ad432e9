"""ONNX files from elsewhere: their weights in other files, their interfaces, and what never ends."""

import hashlib
import os
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from generalist.errors import BadInput
from generalist.export import external_data
from generalist.export.integrity import verify, with_digests
from generalist.export.runtime import TILE, Runtime
from tests import onnx_models
from tests.onnx_models import CHANNELS, CLASSES, HEIGHT, PIXELS, WEIGHT, WIDTH, endless, linear, outsourced, spread

pytestmark = pytest.mark.long  # many a model is tried in a process of its own
harmless = pytest.mark.usefixtures("tried_here")  # it takes half a second to start one

IMAGES = np.random.default_rng(1).random((7, CHANNELS, HEIGHT, WIDTH), dtype=np.float32)
SHAPE = ("batch", CHANNELS, HEIGHT, WIDTH)
OTHER = np.random.default_rng(2).normal(size=WEIGHT.shape).astype(np.float32)


def foreign(path: Path, **more: object) -> Runtime:
    """Return the file, loaded as another's."""
    return Runtime(path, foreign=True, **more)  # type: ignore[arg-type]  # the test's own words


def saved(model: onnx.ModelProto, path: Path) -> Path:
    """Return the model as a file."""
    path.write_bytes(model.SerializeToString())
    return path


def expected(weight: NDArray[np.float32] = WEIGHT) -> NDArray[np.float32]:
    """Return the logits of `IMAGES`."""
    return IMAGES.reshape(len(IMAGES), -1) @ weight


@harmless
@pytest.mark.parametrize("here", ["a", "b"])
def test_weights_lie_beside_their_file_wherever_one_stands(
    here: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two networks of one architecture, asked from the folder of either, say what they say in one file."""
    for name, weight in (("a", WEIGHT), ("b", OTHER)):
        (tmp_path / name).mkdir()
        spread(linear(weight=weight), tmp_path / name / "net.onnx")
    monkeypatch.chdir(tmp_path / here)
    for name, weight in (("a", WEIGHT), ("b", OTHER)):
        whole = saved(linear(weight=weight), tmp_path / f"{name}.onnx")
        for path in (Path("..", name, "net.onnx"), tmp_path / name / "net.onnx"):
            np.testing.assert_array_equal(foreign(path)(IMAGES), foreign(whole)(IMAGES))
        np.testing.assert_allclose(foreign(whole)(IMAGES), expected(weight), rtol=1e-4, atol=1e-5)


@harmless
def test_the_digest_is_of_all_files(tmp_path: Path) -> None:
    """Other weights, another digest; without other files, that of the file itself."""
    path = tmp_path / "net.onnx"
    spread(linear(), path)
    first = foreign(path).digest
    (tmp_path / "weights.bin").write_bytes(OTHER.tobytes())
    assert foreign(path).digest != first
    (tmp_path / "weights.bin").write_bytes(WEIGHT.tobytes())
    assert foreign(path).digest == first
    whole = saved(linear(), tmp_path / "whole.onnx")
    assert foreign(whole).digest == hashlib.sha256(whole.read_bytes()).hexdigest()


@harmless
def test_a_link_to_a_file_leads_to_its_own_weights(tmp_path: Path) -> None:
    """Not to those beside the link."""
    for name, weight in (("a", WEIGHT), ("b", OTHER)):
        (tmp_path / name).mkdir()
        spread(linear(weight=weight), tmp_path / name / "net.onnx")
    (tmp_path / "a" / "link.onnx").symlink_to(tmp_path / "b" / "net.onnx")
    np.testing.assert_allclose(foreign(tmp_path / "a" / "link.onnx")(IMAGES), expected(OTHER), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "location", ["../out.bin", "sub/../../out.bin", "absolute", "link.bin", "sub/out.bin", "\0", ""]
)
def test_weights_outside_of_the_folder_are_refused(location: str, tmp_path: Path) -> None:
    """Whether by their name or by a link."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "out.bin").write_bytes(WEIGHT.tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "out.bin")
    (folder / "sub").symlink_to(tmp_path)
    location = str(folder / "weights.bin") if location == "absolute" else location
    (folder / "weights.bin").write_bytes(WEIGHT.tobytes())
    spread(linear(), folder / "net.onnx", location, data=b"")
    with pytest.raises(BadInput, match=r"leads out of its folder|can't be read"):
        foreign(folder / "net.onnx")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda _path: None, "no such file beside it"),
        (lambda path: path.mkdir(), "not a regular file"),
        (os.mkfifo, "not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "leads out of its folder"),
        (lambda path: path.symlink_to(path), "leads out of its folder|no such file"),
        (lambda path: path.write_bytes(b"short"), "too short"),
        (lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 2**32), "bytes"),
    ],
    ids=["missing", "directory", "fifo", "device", "loop", "short", "huge"],
)
def test_weights_that_are_no_file_are_refused(make: object, told: str, tmp_path: Path) -> None:
    """At once, and in one sentence."""
    spread(linear(), tmp_path / "net.onnx", data=b"")
    make(tmp_path / "weights.bin")  # type: ignore[operator]  # one of those above
    with pytest.raises(BadInput, match=told):
        foreign(tmp_path / "net.onnx")


@pytest.mark.parametrize(
    "more",
    [{"offset": "-1"}, {"offset": "1" * 5000}, {"length": "9999999"}, {"offset": "8"}, {"length": "x"}],
    ids=["negative", "digits", "long", "beyond", "text"],
)
def test_places_beyond_the_file_are_refused(more: dict[str, str], tmp_path: Path) -> None:
    """An offset or a length that is no number of bytes of it."""
    model = linear()
    (tmp_path / "weights.bin").write_bytes(WEIGHT.tobytes())
    outsourced(model.graph.initializer[0], "weights.bin", **more)
    with pytest.raises(BadInput, match="too short"):
        foreign(saved(model, tmp_path / "net.onnx"))


@harmless
def test_places_in_a_file_are_read(tmp_path: Path) -> None:
    """With offset and length, as torch writes them."""
    model = linear()
    (tmp_path / "weights.bin").write_bytes(b"12345678" + WEIGHT.tobytes() + b"more")
    outsourced(model.graph.initializer[0], "weights.bin", offset="8", length=str(WEIGHT.nbytes))
    np.testing.assert_allclose(foreign(saved(model, tmp_path / "net.onnx"))(IMAGES), expected(), rtol=1e-4, atol=1e-5)


@harmless
def test_weights_that_are_no_initializer_are_found(tmp_path: Path) -> None:
    """A constant's value may lie in another file, too."""
    model = linear()
    weight = model.graph.initializer.pop()
    (tmp_path / "weights.bin").write_bytes(weight.raw_data)
    outsourced(weight, "weights.bin")
    constant = helper.make_node("Constant", [], ["weight"], value=weight)
    model.graph.node.insert(0, constant)
    path = saved(model, tmp_path / "net.onnx")
    np.testing.assert_allclose(foreign(path)(IMAGES), expected(), rtol=1e-4, atol=1e-5)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(BadInput, match="no such file beside it"):
        foreign(path)


def test_many_uses_of_one_file_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file that a thousand tensors name would fill the memory."""
    monkeypatch.setattr(external_data, "LIMIT", 4 * WEIGHT.nbytes)
    model = linear()
    (tmp_path / "weights.bin").write_bytes(WEIGHT.tobytes())
    for _ in range(5):
        model.graph.initializer.append(model.graph.initializer[0])
    for tensor in model.graph.initializer:
        outsourced(tensor, "weights.bin")
    with pytest.raises(BadInput, match="bytes of weights"):
        foreign(saved(model, tmp_path / "net.onnx"))


def test_a_sealed_file_has_no_weights_elsewhere(tmp_path: Path) -> None:
    """No digest would be of them."""
    model = linear()
    (tmp_path / "weights.bin").write_bytes(WEIGHT.tobytes())
    outsourced(model.graph.initializer[0], "weights.bin")
    path = tmp_path / "model.onnx"
    path.write_bytes(with_digests(model, {}))
    for load in (verify, Runtime, foreign):
        with pytest.raises(BadInput, match="keeps weights in other files"):
            load(path)  # type: ignore[operator]  # mypy joins them to an object


@harmless
def test_a_sealed_file_is_attacked_as_any_other(tmp_path: Path) -> None:
    """If nobody changed it."""
    path = tmp_path / "model.onnx"
    path.write_bytes(with_digests(linear(), {}))
    np.testing.assert_array_equal(foreign(path)(IMAGES), Runtime(path)(IMAGES))
    path.write_bytes(path.read_bytes().replace(b"made_by_hand", b"made_by_head"))
    with pytest.raises(BadInput, match="was changed after export"):
        foreign(path)


@harmless
@pytest.mark.parametrize("value", ["[" * 100_000, "1" * 5_000, '{"a":' * 5_000])
def test_metadata_that_no_reader_takes_is_not_ours(value: str, tmp_path: Path) -> None:
    """Of a sealed file; in another's nobody reads it."""
    path = tmp_path / "model.onnx"
    path.write_bytes(with_digests(linear(), {"class_names": value}))
    with pytest.raises(BadInput, match=r"metadata 'class_names' .* was not written by generalist"):
        verify(path)
    model = linear()
    model.metadata_props.add(key="note", value=value)
    assert foreign(saved(model, path)).metadata == {"note": value}


@harmless
@pytest.mark.parametrize("batch", [1, 3, 7, 50])
def test_a_fixed_batch_is_tiled(batch: int, tmp_path: Path) -> None:
    """The last batch is filled with copies, and nobody sees them."""
    path = saved(linear(shape=(batch, CHANNELS, HEIGHT, WIDTH)), tmp_path / "net.onnx")
    np.testing.assert_allclose(foreign(path)(IMAGES), expected(), rtol=1e-4, atol=1e-5)
    assert foreign(path)(IMAGES[:0]).shape == (0, CLASSES)


@harmless
@pytest.mark.parametrize("shape", [("n", CHANNELS, "h", "w"), ("n", "c", "h", "w"), (2, CHANNELS, "h", WIDTH)])
def test_open_sizes_are_those_of_the_images(shape: tuple[object, ...], tmp_path: Path) -> None:
    """As of a network that takes images of any size; without images the sentence says what is open."""
    path = saved(linear(shape=shape), tmp_path / "net.onnx")
    runtime = foreign(path, shape=IMAGES.shape[1:])
    np.testing.assert_allclose(runtime(IMAGES), expected(), rtol=1e-4, atol=1e-5)
    with pytest.raises(BadInput, match="leaves the size of its images open"):
        foreign(path)


@harmless
@pytest.mark.parametrize("dtype", [TensorProto.DOUBLE, TensorProto.FLOAT16])
def test_other_floats_are_taken(dtype: int, tmp_path: Path) -> None:
    """Images go in as the model wants them, logits come out in float32."""
    logits = foreign(saved(linear(dtype=dtype), tmp_path / "net.onnx"))(IMAGES)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected(), atol=0.05)


def with_nodes(
    *nodes: onnx.NodeProto,
    out: tuple[object, ...],
    shape: tuple[object, ...] = SHAPE,
    more: tuple[onnx.TensorProto, ...] = (),
) -> onnx.ModelProto:
    """Return a model from `images` to `logits` through these nodes."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, out)],
        [numpy_helper.from_array(WEIGHT, "weight"), *more],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


FLAT = helper.make_node("Flatten", ["images"], ["flat"])
TIMES = helper.make_node("MatMul", ["flat", "weight"], ["product"])


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (linear(shape=("n", CHANNELS, 0, WIDTH), weight=np.zeros((0, CLASSES), dtype=np.float32)), "of no size"),
        (linear(shape=(0, CHANNELS, HEIGHT, WIDTH)), "of no size"),
        (with_nodes(helper.make_node("GlobalMaxPool", ["images"], ["pooled"]), helper.make_node("Flatten", ["pooled"], ["logits"]), shape=("n", CLASSES, 2**20, 2**20), out=("n", CLASSES)), "huge"),
        (linear(shape=(2**40, CHANNELS, HEIGHT, WIDTH)), "huge"),
        (linear(weight=np.zeros((PIXELS, 0), dtype=np.float32)), "of no size|gives logits"),
        (linear(shape=("n", PIXELS)), "no image classifier: it has images .*, expected images float32"),
        (linear(dtype=TensorProto.INT32), "no image classifier"),
        (with_nodes(FLAT, TIMES, helper.make_node("ReduceMean", ["product", "axis"], ["logits"]), out=("n", CLASSES), more=(numpy_helper.from_array(np.array([0]), "axis"),)), r"gives logits \[1, 4\] for 2 images"),
        (with_nodes(FLAT, TIMES, helper.make_node("Unsqueeze", ["product", "axis"], ["logits"]), out=("n", CLASSES, 1), more=(numpy_helper.from_array(np.array([2]), "axis"),)), "no image classifier"),
        (with_nodes(helper.make_node("ConstantOfShape", ["huge"], ["c"]), FLAT, TIMES, helper.make_node("ReduceSum", ["c"], ["s"], keepdims=0), helper.make_node("Add", ["product", "s"], ["logits"]), out=("n", CLASSES), more=(numpy_helper.from_array(np.array([2**45]), "huge"),)), "net.onnx"),
    ],
    ids=["no height", "no batch", "huge image", "huge batch", "no classes", "rank", "integers", "one row", "logits' rank", "constant"],
)  # fmt: skip
def test_what_is_no_classifier_is_refused(model: onnx.ModelProto, told: str, tmp_path: Path) -> None:
    """With what was expected and found."""
    with pytest.raises(BadInput, match=told):
        foreign(saved(model, tmp_path / "net.onnx"), shape=IMAGES.shape[1:])


@harmless
def test_logits_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    """In one sentence, when they come."""
    path = saved(linear(weight=np.where(WEIGHT > 2, np.inf, WEIGHT).astype(np.float32)), tmp_path / "net.onnx")
    with pytest.raises(BadInput, match=r"logits that are not finite, (inf|nan)"):
        foreign(path)(IMAGES)


def test_a_loop_that_never_ends_is_ended(tmp_path: Path) -> None:
    """Within the limit, before any image of the caller's is asked for."""
    path, began = saved(endless(), tmp_path / "net.onnx"), time.monotonic()
    with pytest.raises(BadInput, match=r"no logits for its first images within 2 s: .* loop"):
        foreign(path, limit=2.0)
    assert time.monotonic() - began < 10


def test_a_loop_that_some_images_never_leave_is_ended(tmp_path: Path) -> None:
    """It waits for an image that the trial has not."""
    runtime = foreign(saved(endless(pixels=True), tmp_path / "net.onnx"))
    runtime._limit, runtime._patience = 2.0, 0.0
    np.testing.assert_allclose(runtime(IMAGES), expected(), rtol=1e-4, atol=1e-5)
    images, began = np.ones_like(IMAGES), time.monotonic()
    with pytest.raises(BadInput, match="no answer in 2 s"):
        runtime(images)
    assert time.monotonic() - began < 10


def test_functions_of_functions_do_not_hang(tmp_path: Path) -> None:
    """Each calls the one below ten times: a billion nodes, if somebody wrote them out."""
    model = linear()
    model.opset_import.append(helper.make_opsetid("f", 1))
    below = None
    for level in range(9):
        inner = "Identity" if below is None else below
        names = ["x", *(f"y{i}" for i in range(9)), "z"]
        nodes = [helper.make_node(inner, [names[i]], [names[i + 1]], domain="f" if below else "") for i in range(10)]
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("f", 1)]
        below = f"f{level}"
        model.functions.append(helper.make_function("f", below, ["x"], ["z"], nodes, opsets))
    model.graph.node[1].input[0] = "deep"
    model.graph.node.insert(1, helper.make_node("f8", ["flat"], ["deep"], domain="f"))
    began = time.monotonic()
    with pytest.raises(BadInput, match=r"net\.onnx"):
        foreign(saved(model, tmp_path / "net.onnx"), limit=4.0)
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.mkdir()])
def test_a_model_that_is_no_file_is_refused(make: object, tmp_path: Path) -> None:
    """Before it is opened."""
    make(tmp_path / "net.onnx")  # type: ignore[operator]  # one of those above
    with pytest.raises(BadInput, match=r"not a regular file|Is a directory"):
        foreign(tmp_path / "net.onnx")


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    """Before it is read."""
    with (tmp_path / "net.onnx").open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(BadInput, match=f"it has more than {2**31 - 1:,} bytes"):
        foreign(tmp_path / "net.onnx")


@harmless
def test_names_from_elsewhere_are_shown_in_one_line(tmp_path: Path) -> None:
    """No line breaks and no escape codes of another's making."""
    path = saved(linear(names=("a\nb\x1b[31m", "c\nd"), shape=("n", 3)), tmp_path / "net.onnx")
    with pytest.raises(BadInput) as error:
        foreign(path)
    assert str(error.value).isprintable()


@harmless
def test_many_images_of_another_model_keep_their_order(tmp_path: Path) -> None:
    """Beyond one tile."""
    images = np.random.default_rng(0).random((TILE + 3, CHANNELS, HEIGHT, WIDTH), dtype=np.float32)
    logits = foreign(saved(onnx_models.linear(names=("x", "y")), tmp_path / "net.onnx"))(images)
    np.testing.assert_allclose(logits, images.reshape(len(images), -1) @ WEIGHT, rtol=1e-4, atol=1e-5)
