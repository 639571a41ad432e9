"""Small ONNX models made by hand: what seals, runtime and predictor are tested with, without torch."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

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
