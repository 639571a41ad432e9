"""From a classifier to one ONNX file whose bytes depend on weights and metadata alone."""

import copy
import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path

import onnx
import torch
from google.protobuf.message import Message  # type: ignore[import-untyped]  # it comes without types
from torch import Tensor, nn

from generalist.atomic_files import check_file, write_atomically
from generalist.errors import BadInput
from generalist.export.integrity import with_digests
from generalist.export.interface import LAMBDA
from generalist.models import Classifier

OLDEST_OPSET = 18  # the exporter writes 18 and converts; to 17 there is no conversion of Pad and ReduceMean


class Deployed(nn.Module):
    """The rule that is deployed, in eval mode: images [batch, channels, height, width] to logits [batch, classes].

    That of a conditional network takes lambda [batch], too.
    It works on a copy: the classifier's mode and weights stay as they are.
    """

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.model.decision(self.model(images) if condition is None else self.model(images, condition))


def export(model: Classifier, path: Path, *, metadata: Mapping[str, str], opset: int) -> str:
    """Write the deployed rule of `model` as one ONNX file and return the file's SHA-256 (hex).

    Input `images` float32 [batch, channels, height, width] in [0, 1], output `logits` float32 [batch, classes];
    the number of images is free. A conditional model has an input `lambda` float32 [batch] in [0, 1], too. Equal
    weights and metadata give equal bytes, wherever they are exported.

    Args:
        model: on any device and in any mode; it is left as it was.
        path: the file; it is replaced as a whole.
        metadata: strings to carry along; the digests of `seal` are added.
        opset: ONNX operator set.

    Raises:
        BadInput: the operator set is not available, or the file can't be written.
    """
    if opset < OLDEST_OPSET:
        raise BadInput(f"export.opset is {opset}, but torch exports from {OLDEST_OPSET} on: raise it")
    check_file(path)
    content = with_digests(_stripped(_traced(model, opset)), metadata)
    onnx.checker.check_model(content, full_check=True)
    write_atomically(path, content)
    return hashlib.sha256(content).hexdigest()


def _traced(model: Classifier, opset: int) -> onnx.ModelProto:
    rule = Deployed(model).to("cpu").to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # stubs lack it
    shape = model.shape
    example = torch.zeros(2, shape.channels, shape.height, shape.width)
    conditional = model.encoding is not None
    shapes = {"images": {0: torch.export.Dim("batch")}}
    if conditional:
        shapes["condition"] = {0: torch.export.Dim.DYNAMIC}  # which is found to be the same
    with warnings.catch_warnings():
        # torch's own use of a name that it has deprecated; nothing of ours, and nothing to be done about it.
        warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=FutureWarning)
        program = torch.onnx.export(
            rule,
            (example, torch.tensor([0.0, 1.0])) if conditional else (example,),
            dynamo=True,
            opset_version=opset,
            input_names=["images", LAMBDA] if conditional else ["images"],
            output_names=["logits"],
            dynamic_shapes=shapes,
            external_data=False,
            verbose=False,
        )
    assert program is not None  # which it is for the older exporter alone
    proto = program.model_proto
    versions = {entry.domain: entry.version for entry in proto.opset_import}
    if versions != {"": opset}:  # the exporter keeps its own version where the conversion fails, and only logs it
        raise BadInput(f"export.opset is {opset}, but torch could not convert this model to it: choose {OLDEST_OPSET}")
    return proto


def _stripped(model: onnx.ModelProto) -> onnx.ModelProto:
    """Leave out what differs by place and version: the exporter notes a stack trace, with paths, at each node."""
    _strip(model)
    model.producer_name, model.producer_version = "generalist", ""
    model.graph.name = "generalist"
    return model


def _strip(message: Message) -> None:
    for field, value in message.ListFields():
        if field.name in {"doc_string", "metadata_props"}:
            message.ClearField(field.name)
        elif field.message_type is not None:
            for part in [value] if isinstance(value, Message) else value:
                _strip(part)
