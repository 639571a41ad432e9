"""Small ONNX models made by hand: what seals, runtime and predictor are tested with, without torch."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from generalist.errors import BadInput
from generalist.export import probe
from generalist.export.integrity import with_digests
from generalist.export.probe import ProbeReport

CHANNELS, HEIGHT, WIDTH, CLASSES = 3, 4, 5, 4
PIXELS = CHANNELS * HEIGHT * WIDTH
WEIGHT = np.random.default_rng(0).normal(size=(PIXELS, CLASSES)).astype(np.float32)


def linear(
    *,
    weight: NDArray[Any] = WEIGHT,
    shape: tuple[Any, ...] = ("batch", CHANNELS, HEIGHT, WIDTH),
    names: tuple[str, str] = ("images", "logits"),
    dtype: int = TensorProto.FLOAT,
    domain: str = "",
) -> onnx.ModelProto:
    """logits = flattened images × weight."""
    source, target = names
    nodes = [
        helper.make_node("Flatten", [source], ["flat"], name="flatten"),
        helper.make_node("MatMul", ["flat", "weight"], [target], name="matmul", domain=domain),
    ]
    graph = helper.make_graph(
        nodes,
        "made_by_hand",
        [helper.make_tensor_value_info(source, dtype, shape)],
        [helper.make_tensor_value_info(target, dtype, (shape[0], weight.shape[1]))],
        [numpy_helper.from_array(weight.astype(helper.tensor_dtype_to_np_dtype(dtype)), "weight")],
    )
    opsets = [helper.make_opsetid("", 18)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def write_metadata(path: Path, metadata: dict[str, str]) -> None:
    """Give a file other metadata, sealed as an export seals it, in place of its own."""
    path.write_bytes(with_digests(onnx.load(path), metadata))


def endless(*, pixels: bool = False) -> onnx.ModelProto:
    """As `linear`, behind a loop that never ends: never at all, or for images whose first pixel is 1."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Identity", ["x"], ["y"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
        ],
    )
    model = linear()
    nodes = list(model.graph.node)
    model.graph.ClearField("node")
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "always"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "zero"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(1, dtype=np.float32), "one"))
    first = [
        helper.make_node("Gather", ["flat", "zero"], ["column"], axis=1),
        helper.make_node("ReduceMax", ["column"], ["largest"], keepdims=0),
        helper.make_node("GreaterOrEqual", ["largest", "one"], ["white"]),
    ]
    loop = helper.make_node("Loop", ["", "white" if pixels else "always", "flat"], ["looped"], body=body)
    nodes[1].input[0] = "looped"
    model.graph.node.extend([nodes[0], *(first if pixels else []), loop, nodes[1]])
    return model


def spread(model: onnx.ModelProto, path: Path, location: str = "weights.bin", data: bytes | None = None) -> None:
    """Write a model whose weight lies in another file; without `data`, that file is written, too."""
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == "weight")
    if data is None:
        (path.parent / location).write_bytes(weight.raw_data)
    outsourced(weight, location)
    path.write_bytes(model.SerializeToString())


def outsourced(tensor: TensorProto, location: str, **more: str) -> None:
    """Take the data out of a tensor and name a file in its place."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=value)


def tried_here(
    content: bytes, path: Path, threads: int, shape: tuple[int, int, int] | None, limit: float
) -> ProbeReport:
    """Try a model in this process."""
    answer = probe._main({"path": path, "threads": threads, "shape": shape}, content)
    if "refused" in answer:
        raise BadInput(answer["refused"])
    return ProbeReport(**answer)
