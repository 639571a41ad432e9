"""Convolutions of few pixels as matrices: on a CPU one multiplication then costs less than the convolution.

A 3×3 convolution of 4×4 pixels touches 9 of 16 pixels for each result, so its matrix is mostly full. What comes before
the first one (normalisation, rearranging pixels) never changes and is multiplied into it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from generalist.engine.operations import (
    Call,
    Convolution,
    Gradients,
    Operation,
    Pad,
    Scale,
    Shift,
    Unshuffle,
)

_LARGEST = 2**19  # entries of a matrix: beyond, it takes longer to fill than it saves
_FULLER = 2.0  # how many times more multiplications a matrix may take


class Dense(Operation):
    """A convolution of images of one size, and constant operations before it, as one matrix.

    Its rows and columns count pixels first and channels within them; values lie in memory as channels_last.
    """

    def __init__(
        self, convolution: Convolution, given: torch.Size, gives: torch.Size, before: "_Before | None"
    ) -> None:
        """`given` and `gives` are the sizes of one image at the convolution, without the batch."""
        self.convolution, self.gives, self.before = convolution, gives, before
        self.which = _taps(convolution, given, gives)
        self.pixels = gives[1] * gives[2]

    def refresh(self) -> None:
        self.convolution.refresh()
        weight, bias = self.convolution.weight, self.convolution.bias
        outputs, inputs = weight.shape[:2]
        taps = F.pad(weight.flatten(2).permute(2, 0, 1), (0, 0, 0, 0, 0, 1)).view(-1, inputs)  # the last tap is zero
        matrix = taps.index_select(0, self.which).view(self.pixels * outputs, -1)
        total = weight.new_zeros(len(matrix)) if bias is None else bias.repeat(self.pixels)
        if self.before is not None:
            total = total + matrix @ self.before.constant.to(matrix.dtype)
            matrix = matrix @ self.before.matrix.to(matrix.dtype)
        self.matrix, self.bias = matrix, total

    def forward(self, *inputs: Tensor) -> Tensor:
        rows = inputs[0].flatten(1) if self.before else inputs[0].permute(0, 2, 3, 1).flatten(1)
        channels, height, width = self.gives
        return F.linear(rows, self.matrix, self.bias).view(-1, height, width, channels).permute(0, 3, 1, 2)

    def backward(self, gradient: Tensor, output: Tensor, inputs: Sequence[Tensor]) -> Gradients:
        found = gradient.permute(0, 2, 3, 1).flatten(1) @ self.matrix
        if self.before:
            return (found.view_as(inputs[0]),)
        channels, height, width = inputs[0].shape[1:]
        return (found.view(-1, height, width, channels).permute(0, 3, 1, 2),)


class _Before:
    """Constant operations on the image as one matrix and what they make of a black image."""

    def __init__(self, operations: Sequence[Operation], image: torch.Size) -> None:
        pixels = image.numel()
        with torch.no_grad():
            values = torch.cat([torch.zeros(1, pixels), torch.eye(pixels)]).view(-1, *image)
            for operation in operations:
                values = operation.forward(values)
        values = values.permute(0, 2, 3, 1).flatten(1)
        self.constant = values[0]
        self.matrix = (values[1:] - values[0]).t().contiguous()


def condensed(calls: Sequence[Call], image: torch.Size) -> list[Call]:
    """The same calls with small convolutions as matrices; values keep their numbers.

    Args:
        calls: after `refresh`, in float32 on the CPU.
        image: channels, height, width.
    """
    sizes = _sizes(calls, image)
    constant = _constant_part(calls)
    rest = list(calls[len(constant) :])
    start = constant[-1][2] if constant else 0
    users = [operation for operation, inputs, _ in rest if start in inputs]
    found: list[Call] = []
    for operation, inputs, place in rest:
        if not isinstance(operation, Convolution) or not _pays(operation, sizes[inputs[0]], sizes[place]):
            found.append((operation, inputs, place))
        elif constant and users == [operation]:
            before = _Before([own for own, _, _ in constant], image)
            found.append((Dense(operation, sizes[start], sizes[place], before), (0,), place))
            constant = []
        else:
            found.append((Dense(operation, sizes[inputs[0]], sizes[place], None), inputs, place))
    return [*constant, *found]


def _constant_part(calls: Sequence[Call]) -> list[Call]:
    """The operations at the beginning that have no weights, one after the other."""
    found: list[Call] = []
    for operation, inputs, place in calls:
        if not isinstance(operation, _CONSTANT) or inputs != (place - 1,):
            break
        found.append((operation, inputs, place))
    return found


_CONSTANT = (Shift, Scale, Pad, Unshuffle)


def _sizes(calls: Sequence[Call], image: torch.Size) -> dict[int, torch.Size]:
    """Of all values of one image, without the batch."""
    values = {0: torch.zeros(1, *image)}
    with torch.no_grad():
        for operation, inputs, place in calls:
            values[place] = operation.forward(*(values[index].clone() for index in inputs))
    return {place: value.shape[1:] for place, value in values.items()}


def _pays(convolution: Convolution, given: torch.Size, gives: torch.Size) -> bool:
    _, _, dilation, groups = convolution.how
    taps = convolution.weight.shape[2] * convolution.weight.shape[3]
    small = given.numel() * gives.numel() <= _LARGEST
    return groups == 1 and set(dilation) == {1} and small and given[1] * given[2] <= _FULLER * taps


def _taps(convolution: Convolution, given: torch.Size, gives: torch.Size) -> Tensor:
    """Rows of the taps, [tap, output channel], in the order of output pixel, output channel and input pixel.

    Beyond the kernel it is the tap after the last one.
    """
    strides, paddings, _, _ = convolution.how
    kernel = convolution.weight.shape[2:]
    found = []
    for axis in (0, 1):
        output, source = torch.arange(gives[axis + 1])[:, None], torch.arange(given[axis + 1])[None]
        found.append(source - output * strides[axis] + int(paddings[axis]))
    inside = [(own >= 0) & (own < size) for own, size in zip(found, kernel, strict=True)]
    rows, columns = found[0][:, None, :, None], found[1][None, :, None, :]
    both = inside[0][:, None, :, None] & inside[1][None, :, None, :]
    taps = torch.where(both, rows * kernel[1] + columns, kernel.numel())
    outputs = gives[0]
    taps = taps.reshape(gives[1] * gives[2], 1, given[1] * given[2])
    return (taps * outputs + torch.arange(outputs)[:, None]).flatten()
