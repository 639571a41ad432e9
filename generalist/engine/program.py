"""A network in eval mode as a list of operations: gradients lead to its images, and nowhere else.

Against autograd through the network, BatchNorm is folded into convolutions, nothing is kept for gradients of weights,
and each operation costs less Python. Its sums are taken in another order, so results differ by rounding.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from generalist.engine.operations import Call
from generalist.engine.replaying import Replays
from generalist.tensors import Images, Logits

OfLogits = Callable[[Logits], Logits]
"""From logits to the gradient of a loss with respect to them."""


class Program:
    """Follows the weights of the network it was made from: `expire` it after each change of them.

    Called with images [batch, channels, height, width] it gives logits float32 [batch, classes], differentiable in the
    images.
    """

    def __init__(self, calls: Sequence[Call], *, result: int, dtype: torch.dtype, channels_last: bool) -> None:
        """Value 0 is the images, and `result` the logits."""
        self.calls, self.result, self.dtype = list(calls), result, dtype
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.replays: Replays | None = None
        """Repeats whole attacks on this network, where that is possible."""
        self.way: Way = plainly
        """How gradients are computed; they get the program as an argument, as holding it would keep its memory."""
        self.refresh()

    def with_calls(self, calls: Sequence[Call]) -> "Program":
        """The same with other operations that give the same result."""
        last = self.format == torch.channels_last
        return Program(calls, result=self.result, dtype=self.dtype, channels_last=last)

    def expire(self) -> None:
        """Say that weights have changed: the next call takes them."""
        self._stale = True

    @torch.no_grad()
    def refresh(self) -> None:
        """Take the present weights."""
        self._stale = False
        for operation, _, _ in self.calls:
            operation.refresh()

    def __call__(self, images: Images) -> Logits:
        logits: Logits = _Run.apply(images, self)  # type: ignore[no-untyped-call]
        return logits

    def slope(self, images: Images, of_logits: OfLogits) -> Images:
        """The gradient of the images, from what gives that of the logits; autograd sees nothing of the network."""
        if self._stale:
            self.refresh()
        return self.way(self, images, of_logits)

    def slope_by(
        self, images: Images, of_logits: OfLogits, forth: Callable[..., list[Tensor]], back: Callable[..., Images]
    ) -> Images:
        """The same by passes that do what `forward` and `backward` do; they get this program, too."""
        with torch.inference_mode():
            values = forth(self, images)
        logits = values[self.result].float().clone()  # an ordinary tensor
        gradient = of_logits(logits)
        with torch.inference_mode():
            found = back(self, gradient, values)
        return found.clone()

    def forward(self, images: Images) -> list[Tensor]:
        """All values."""
        if self._stale:
            self.refresh()
        values = [images.to(self.dtype, memory_format=self.format)] + [images] * self.result
        for operation, inputs, place in self.calls:
            values[place] = operation.forward(*[values[index] for index in inputs])
        return values

    def backward(self, gradient: Tensor, values: Sequence[Tensor]) -> Images:
        """The gradient of the images, from that of the logits and all values."""
        found: list[Tensor | None] = [None] * len(values)
        found[self.result] = gradient.to(self.dtype)
        for operation, inputs, place in reversed(self.calls):
            own, found[place] = found[place], None
            assert own is not None  # every value leads to the result, see `tracing`
            parts = operation.backward(own, values[place], [values[index] for index in inputs])
            for index, part in zip(inputs, parts, strict=True):
                before = found[index]
                found[index] = part if before is None else before + part
        total = found[0]
        assert total is not None
        return total.to(torch.float32, memory_format=torch.contiguous_format)


Way = Callable[[Program, Images, OfLogits], Images]
"""What `slope` gives."""


def plainly(program: Program, images: Images, of_logits: OfLogits) -> Images:
    """A program's gradient, operation by operation."""
    return program.slope_by(images, of_logits, Program.forward, Program.backward)


class _Run(torch.autograd.Function):
    """A program as one node of autograd's graph."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, program: Program) -> Tensor:
        ctx.program, ctx.values = program, program.forward(images)
        logits: Tensor = ctx.values[program.result]
        return logits.float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        program: Program = ctx.program
        return program.backward(gradient, ctx.values), None
