"""Operations of a network in eval mode: what each gives, and how a gradient goes back through it to its input."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Gradients = Sequence[Tensor]
"""One for each input, in their order."""


class Operation(ABC):
    """A function of one or more tensors, without weights that anybody learns."""

    @abstractmethod
    def forward(self, *inputs: Tensor) -> Tensor:
        """What it gives."""

    @abstractmethod
    def backward(self, gradient: Tensor, output: Tensor, inputs: Sequence[Tensor]) -> Gradients:
        """The gradients of its inputs."""

    def refresh(self) -> None:  # noqa: B027  most have nothing to follow
        """Follow the weights it was made from, after they changed."""


Call = tuple[Operation, tuple[int, ...], int]
"""An operation, the numbers of the values it takes, and of the one it gives."""


@dataclass(frozen=True)
class Statistics:
    """Of a BatchNorm in eval mode: tensors that may change, and a constant."""

    mean: Tensor
    variance: Tensor
    weight: Tensor | None
    bias: Tensor | None
    eps: float

    def affine(self) -> tuple[Tensor, Tensor]:
        """Its scale and its shift, for each channel."""
        scale = (self.variance + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight
        shift = -self.mean * scale
        return scale, shift if self.bias is None else shift + self.bias


class Convolution(Operation):
    """A convolution, with the BatchNorm after it folded in where there is one."""

    def __init__(self, weight: Tensor, bias: Tensor | None, how: tuple[Any, ...], dtype: torch.dtype) -> None:
        """`how` is stride, padding and dilation, each for both axes, and the number of groups."""
        self.source, self.source_bias, self.how, self.dtype = weight, bias, how, dtype
        self.norm: Statistics | None = None
        self.refresh()

    def take_in(self, norm: Statistics) -> None:
        """Be followed by a BatchNorm."""
        self.norm = norm
        self.refresh()

    def refresh(self) -> None:
        weight, bias = self.source.detach(), self.source_bias
        if self.norm is not None:
            scale, shift = self.norm.affine()
            weight = weight * scale.view(-1, 1, 1, 1)
            bias = shift if bias is None else torch.addcmul(shift, bias, scale)
        self.weight = weight.to(self.dtype)
        self.bias = None if bias is None else bias.detach().to(self.dtype)

    def forward(self, *inputs: Tensor) -> Tensor:
        stride, padding, dilation, groups = self.how
        return F.conv2d(inputs[0], self.weight, self.bias, stride, padding, dilation, groups)

    def backward(self, gradient: Tensor, output: Tensor, inputs: Sequence[Tensor]) -> Gradients:
        stride, padding, dilation, groups = self.how
        found: Gradients = torch.ops.aten.convolution_backward(
            gradient,
            inputs[0],
            self.weight,
            None,
            stride,
            padding,
            dilation,
            False,  # not transposed
            (0, 0),
            groups,
            (True, False, False),  # of the input alone
        )
        return found[:1]


class Norm(Operation):
    """A BatchNorm that no convolution can take in: a scale and a shift for each channel."""

    def __init__(self, statistics: Statistics, dtype: torch.dtype) -> None:
        self.statistics, self.dtype = statistics, dtype
        self.refresh()

    def refresh(self) -> None:
        scale, shift = self.statistics.affine()
        self.scale, self.shift = (own.detach().to(self.dtype).view(1, -1, 1, 1) for own in (scale, shift))

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.addcmul(self.shift, inputs[0], self.scale)

    def backward(self, gradient: Tensor, output: Tensor, inputs: Sequence[Tensor]) -> Gradients:
        return (gradient * self.scale,)


class Linear(Operation):
    """A linear layer."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        self.source, self.source_bias, self.dtype = weight, bias, dtype
        self.refresh()

    def refresh(self) -> None:
        self.weight = self.source.detach().to(self.dtype)
        self.bias = None if self.source_bias is None else self.source_bias.detach().to(self.dtype)

    def forward(self, *inputs: Tensor) -> Tensor:
        return F.linear(inputs[0], self.weight, self.bias)

    def backward(self, gradient: Tensor, output: Tensor, inputs: Sequence[Tensor]) -> Gradients:
        return (gradient @ self.weight,)


class Relu(Operation):
    """max(0, x); in place where nobody else needs x."""

    def __init__(self, *, in_place: bool) -> None:
        self.function = torch.relu_ if in_place else torch.relu

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(inputs[0])

    def backward(self, gradient: Tensor, output: Tensor, inputs: Sequence[Tensor]) -> Gradients:
        return (torch.ops.aten.threshold_backward(gradient, output, 0),)


class Add(Operation):
    """The sum of two."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.add(*inputs)

    def backward(self, gradient: Tensor, output: Tensor, inputs: Sequence[Tensor]) -> Gradients:
        return gradient, gradient


class Shift(Operation):
    """Minus a constant."""

    def __init__(self, constant: Tensor) -> None:
        self.constant = constant

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0] - self.constant

    def backward(self, gradient: Tensor, output: Tensor, inputs: Sequence[Tensor]) -> Gradients:
        return (gradient,)


class Scale(Operation):
    """Divided by a constant."""

    def __init__(self, constant: Tensor) -> None:
        self.constant = constant

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0] / self.constant

    def backward(self, gradient: Tensor, output: Tensor, inputs: Sequence[Tensor]) -> Gradients:
        return (gradient / self.constant,)


class Flatten(Operation):
    """All but the batch in one dimension."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].flatten(1)

    def backward(self, gradient: Tensor, output: Tensor, inputs: Sequence[Tensor]) -> Gradients:
        return (torch.empty_like(inputs[0]).copy_(gradient.view(inputs[0].shape)),)  # as the input lies in memory


class Mean(Operation):
    """The mean over height and width."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].mean((2, 3))

    def backward(self, gradient: Tensor, output: Tensor, inputs: Sequence[Tensor]) -> Gradients:
        of = inputs[0]
        return ((gradient / (of.shape[2] * of.shape[3]))[:, :, None, None].expand_as(of),)


class Unshuffle(Operation):
    """Blocks of pixels to channels."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def forward(self, *inputs: Tensor) -> Tensor:
        return F.pixel_unshuffle(inputs[0], self.factor)

    def backward(self, gradient: Tensor, output: Tensor, inputs: Sequence[Tensor]) -> Gradients:
        return (F.pixel_shuffle(gradient, self.factor),)


class Pad(Operation):
    """Zeros around images."""

    def __init__(self, widths: Sequence[int]) -> None:
        self.widths = list(widths)

    def forward(self, *inputs: Tensor) -> Tensor:
        return F.pad(inputs[0], self.widths)

    def backward(self, gradient: Tensor, output: Tensor, inputs: Sequence[Tensor]) -> Gradients:
        return (F.pad(gradient, [-width for width in self.widths]),)
