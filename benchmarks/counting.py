"""The work of a training step, counted: floating-point operations, and bytes that have to move.

Counted on the plain network without computing anything (torch's meta device), so that no fast path decides it: an
attack iteration is a forward pass and the gradient of the images alone, a training pass has the weights' gradients too.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.sides import Case
from generalist.models import build

_PRODUCTS = ("convolution", "convolution_backward", "addmm", "mm", "bmm")
_FOLDED = ("batch_norm",)


@dataclass(frozen=True)
class Work:
    """Of one batch.

    Attributes:
        flops: floating-point operations; a product with an addition counts as two.
        fused: bytes, if everything between two products stays on the chip: what products read and write.
        unfused: bytes, if every operation reads and writes the memory; BatchNorm is counted as folded.
    """

    flops: int
    fused: int
    unfused: int

    def seconds(self, flops_per_second: float, bytes_per_second: float) -> float:
        """Return the least time that this takes: by arithmetic or by memory, whichever is more."""
        return max(self.flops / flops_per_second, self.fused / bytes_per_second)


def iteration(case: Case, batch: int, *, bytes_each: int) -> Work:
    """Return one iteration of the attack, with numbers of so many bytes."""
    network = _network(case).eval().requires_grad_(False)
    leaf = _images(case, batch).requires_grad_()
    images = leaf.view_as(leaf)  # FlopCounterMode can't see gradients end in a leaf
    return _counted(lambda: torch.autograd.grad(_loss(network, images), images), bytes_each)


def training_pass(case: Case, batch: int, *, bytes_each: int) -> Work:
    """Return the forward and backward pass of a training step; optimizer and averages are not counted."""
    network = _network(case).train()
    return _counted(lambda: _loss(network, _images(case, batch)).backward(), bytes_each)


def _network(case: Case) -> Any:
    return build(case.config().model, case.shape).to("meta")


def _images(case: Case, batch: int) -> Tensor:
    shape = case.shape
    return torch.empty(batch, shape.channels, shape.height, shape.width, device="meta")


def _loss(network: Any, images: Tensor) -> Tensor:
    return F.cross_entropy(network(images), torch.zeros(len(images), dtype=torch.int64, device="meta"))


def _counted(call: Any, bytes_each: int) -> Work:
    flops, moved = FlopCounterMode(display=False), _Moved()
    with flops, moved:
        call()
    return Work(flops.get_total_flops(), moved.fused * bytes_each, moved.unfused * bytes_each)


class _Moved(TorchDispatchMode):
    """Counts the numbers that operations read and write; views move none."""

    def __init__(self) -> None:
        super().__init__()
        self.fused = self.unfused = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if func.is_view or any(part in name for part in _FOLDED):
            return result
        read = _tensors(args)
        if name == "convolution_backward":
            of_images, of_weights = args[-1][0], args[-1][1]
            read = [args[0], *([args[1]] if of_weights else []), *([args[2]] if of_images else [])]
        moved = sum(own.numel() for own in (*read, *_tensors(result)))
        self.unfused += moved
        if name in _PRODUCTS:
            self.fused += moved
        return result


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [own for part in value for own in _tensors(part)] if isinstance(value, (list, tuple)) else []
