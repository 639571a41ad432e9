"""A network's program, recorded while the network looks at one image.

torch.fx would patch torch.nn for every thread of the process, and experts train in threads; a mode of torch functions
sees the calls of its own thread alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from generalist.engine import operations as op
from generalist.engine.operations import Call
from generalist.engine.program import Program
from generalist.tensors import Images

TOLERANCE = 1e-3
"""Of the largest logit: a program that differs by more from its network in float32 is not of that network."""


def recorded(
    network: nn.Module, images: Images, *, dtype: torch.dtype = torch.float32, channels_last: bool = False
) -> Program | None:
    """The program of a network in eval mode, sharing its weights; None where it does something unknown here.

    Args:
        network: from images to logits, in eval mode.
        images: some that it takes.
        dtype: of weights and values; images and logits stay float32.
        channels_last: how values lie in memory.
    """
    with torch.no_grad(), _Recorder() as recorder:
        logits = network(images)
    if recorder.looked:
        return None
    try:
        own = {id(tensor) for tensor in (*network.parameters(), *network.buffers())}
        calls, result = _Reader(images, own, dtype).read(recorder.notes, logits)
    except (_UnknownError, TypeError, ValueError):
        return None
    exact = Program(calls, result=result, dtype=dtype, channels_last=channels_last)
    with torch.no_grad():
        difference = (exact(images) - logits).abs().max()
    loose = 1.0 if dtype == torch.float32 else 100.0
    return exact if bool(difference <= loose * TOLERANCE * logits.abs().max()) else None


@dataclass(frozen=True)
class _Note:
    """A call of a torch function, as it was made."""

    function: Any
    arguments: Sequence[Any]
    named: Mapping[str, Any]
    result: Tensor


class _Recorder(TorchFunctionMode):
    """Notes each call that gives a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[_Note] = []
        self.looked = False  # at numbers of a tensor, on which the course may then depend; or took one apart

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.notes.append(_Note(func, args, kwargs or {}, result))
        elif getattr(func, "__name__", "") not in _SHAPES:
            self.looked = True
        return result


_SHAPES = {"__get__", "__len__", "size", "dim", "numel", "stride", "is_floating_point", "is_contiguous"}
"""Names of functions that tell something of a tensor other than its numbers."""


class _UnknownError(Exception):
    """An operation that programs don't have."""


class _Reader:
    """Makes operations of notes.

    Weights and constants must be the network's own tensors: what it computes or draws anew in each pass is none.
    """

    def __init__(self, images: Tensor, own: set[int], dtype: torch.dtype) -> None:
        """`own` are the identities of the network's parameters and buffers."""
        self.dtype, self.own = dtype, own
        self.places = {id(images): 0}
        self.calls: list[Call] = []
        self.uses: dict[int, int] = {}

    def read(self, notes: Sequence[_Note], logits: Tensor) -> tuple[list[Call], int]:
        """The calls, and the number of the logits."""
        for note in notes:
            for own in (*note.arguments, *note.named.values()):
                self.uses[id(own)] = self.uses.get(id(own), 0) + 1
        for note in notes:
            if any(id(own) in self.places for own in (*note.arguments, *note.named.values())):
                self._read(note)
        if self.places.get(id(logits)) != len(self.calls):
            raise _UnknownError("the logits are not the last value")
        return self.calls, len(self.calls)

    def _read(self, note: _Note) -> None:
        reader = _READERS.get(note.function)
        if reader is None or id(note.result) in self.places:
            raise _UnknownError(str(note.function))
        reader(self, note, *note.arguments, **note.named)

    def _add(self, note: _Note, operation: op.Operation, *inputs: Tensor) -> None:
        self.calls.append((operation, tuple(self._place(own) for own in inputs), len(self.calls) + 1))
        self.places[id(note.result)] = len(self.calls)

    def _place(self, tensor: Tensor) -> int:
        if id(tensor) not in self.places:
            raise _UnknownError("a value that does not come from the images")
        return self.places[id(tensor)]

    def convolution(
        self,
        note: _Note,
        given: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> None:
        if isinstance(padding, str):
            raise _UnknownError("padding by name")
        self._check(weight, bias)
        pairs = (own if isinstance(own, tuple) else (own, own) for own in (stride, padding, dilation))
        self._add(note, op.Convolution(weight, bias, (*pairs, groups), self.dtype), given)

    def norm(
        self,
        note: _Note,
        given: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> None:
        if training or running_mean is None or running_var is None or given.ndim != 4:
            raise _UnknownError("BatchNorm in training")
        self._check(running_mean, running_var, weight, bias)
        norm = op.Statistics(running_mean, running_var, weight, bias, eps)
        place = self._place(given)
        before = self.calls[place - 1][0] if place else None
        if isinstance(before, op.Convolution) and before.norm is None and self.uses[id(given)] == 1:
            before.take_in(norm)
            self.places[id(note.result)] = place
        else:
            self._add(note, op.Norm(norm, self.dtype), given)

    def linear(self, note: _Note, given: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
        if given.ndim != 2:
            raise _UnknownError("a linear layer of more than vectors")
        self._check(weight, bias)
        self._add(note, op.Linear(weight, bias, self.dtype), given)

    def relu(self, note: _Note, given: Tensor, inplace: bool = False) -> None:
        place = self._place(given)
        fresh = place > 0 and isinstance(self.calls[place - 1][0], _FRESH) and self.uses[id(given)] == 1
        self._add(note, op.Relu(in_place=fresh), given)

    def sum(self, note: _Note, given: Tensor, other: Tensor) -> None:
        if not isinstance(other, Tensor) or given.shape != other.shape:
            raise _UnknownError("a sum of unlike things")
        self._add(note, op.Add(), given, other)

    def difference(self, note: _Note, given: Tensor, other: Tensor) -> None:
        self._add(note, op.Shift(self._constant(other)), given)

    def quotient(self, note: _Note, given: Tensor, other: Tensor) -> None:
        self._add(note, op.Scale(self._constant(other)), given)

    def flatten(self, note: _Note, given: Tensor, start_dim: int = 0, end_dim: int = -1) -> None:
        if start_dim != 1 or end_dim != -1 or given.ndim != 4:
            raise _UnknownError("flatten")
        self._add(note, op.Flatten(), given)

    def mean(self, note: _Note, given: Tensor, dim: Any = None, keepdim: bool = False) -> None:
        if given.ndim != 4 or keepdim or dim is None or sorted(own % 4 for own in dim) != [2, 3]:
            raise _UnknownError("mean")
        self._add(note, op.Mean(), given)

    def unshuffle(self, note: _Note, given: Tensor, factor: int) -> None:
        self._add(note, op.Unshuffle(factor), given)

    def pad(
        self, note: _Note, given: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
    ) -> None:
        if mode != "constant" or value:
            raise _UnknownError("pad")
        if any(pad):
            self._add(note, op.Pad(pad), given)
        else:
            self.places[id(note.result)] = self._place(given)

    def _constant(self, tensor: Tensor) -> Tensor:
        if not isinstance(tensor, Tensor) or tensor.requires_grad:
            raise _UnknownError("a constant that is learned, or is no tensor")
        self._check(tensor)
        return tensor.to(self.dtype)

    def _check(self, *tensors: Tensor | None) -> None:
        if any(tensor is not None and id(tensor) not in self.own for tensor in tensors):
            raise _UnknownError("a tensor that is not the network's")


_READERS: dict[Any, Callable[..., None]] = {
    F.conv2d: _Reader.convolution,
    F.batch_norm: _Reader.norm,
    F.linear: _Reader.linear,
    F.relu: _Reader.relu,
    torch.relu: _Reader.relu,
    Tensor.relu: _Reader.relu,
    torch.add: _Reader.sum,
    Tensor.add: _Reader.sum,
    Tensor.__add__: _Reader.sum,
    Tensor.sub: _Reader.difference,
    Tensor.__sub__: _Reader.difference,
    Tensor.div: _Reader.quotient,
    Tensor.__truediv__: _Reader.quotient,
    torch.flatten: _Reader.flatten,
    Tensor.flatten: _Reader.flatten,
    Tensor.mean: _Reader.mean,
    torch.mean: _Reader.mean,
    F.pixel_unshuffle: _Reader.unshuffle,
    F.pad: _Reader.pad,
}
_FRESH = (op.Convolution, op.Norm, op.Add, op.Linear)
"""Operations whose result is memory of its own, and which need it no more."""
