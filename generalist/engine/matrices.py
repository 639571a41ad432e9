"""Matrices in place of convolutions of few pixels, for which one multiplication costs less.

Rows and columns count pixels first and channels within them; values lie in memory as channels_last. Matrices are kept
both ways round, because a product with a transposed one takes longer.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from generalist.engine.operations import Convolution, Gradients, Linear, Operation


class Taps:
    """Which weight of a convolution leads from each pixel it takes to each pixel it gives."""

    def __init__(self, convolution: Convolution, given: torch.Size, gives: torch.Size) -> None:
        """`given` and `gives` are the sizes of one image at the convolution, without the batch."""
        self.convolution, self.inputs, self.outputs = convolution, given[0], gives[0]
        strides, paddings, _, _ = convolution.how
        kernel = convolution.weight.shape[2:]
        found = []
        for axis in (0, 1):
            output, source = torch.arange(gives[axis + 1])[:, None], torch.arange(given[axis + 1])[None]
            found.append(source - output * strides[axis] + int(paddings[axis]))
        inside = [(own >= 0) & (own < size) for own, size in zip(found, kernel, strict=True)]
        rows, columns = found[0][:, None, :, None], found[1][None, :, None, :]
        both = inside[0][:, None, :, None] & inside[1][None, :, None, :]
        self.numbers = torch.where(both, rows * kernel[1] + columns, kernel.numel())
        """int64 [rows given, columns given, rows taken, columns taken]; beyond the kernel the number after the last."""
        self.reaches = inside[0]
        """bool [rows given, rows taken]."""

    def forth(self, weight: Tensor) -> Tensor:
        """Weights in the order of `forth_index`, zeros last: [taps × inputs, outputs]."""
        return self._table(weight.flatten(2).permute(2, 1, 0))

    def back(self, weight: Tensor) -> Tensor:
        """Weights in the order of `back_index`, zeros last: [taps × outputs, inputs]."""
        return self._table(weight.flatten(2).permute(2, 0, 1))

    def forth_index(self, numbers: Tensor) -> Tensor:
        """Rows of `forth` that make up the matrix [pixels and channels taken, pixels and channels given]."""
        ordered = numbers.permute(2, 3, 0, 1).flatten(2).unsqueeze(2)
        return (ordered * self.inputs + torch.arange(self.inputs)[:, None]).flatten()

    def back_index(self, numbers: Tensor) -> Tensor:
        """Rows of `back` that make up the matrix [pixels and channels given, pixels and channels taken]."""
        ordered = numbers.flatten(2).unsqueeze(2)
        return (ordered * self.outputs + torch.arange(self.outputs)[:, None]).flatten()

    @staticmethod
    def _table(taps: Tensor) -> Tensor:
        return F.pad(taps, (0, 0, 0, 0, 0, 1)).reshape(-1, taps.shape[2])


class Prefix:
    """Constant operations on the image as one matrix and what they make of a black image."""

    def __init__(self, operations: Sequence[Operation], image: torch.Size) -> None:
        pixels = image.numel()
        with torch.no_grad():
            values = torch.cat([torch.zeros(1, pixels), torch.eye(pixels)]).view(-1, *image)
            for operation in operations:
                values = operation.forward(values)
        values = values.permute(0, 2, 3, 1).flatten(1)
        self.constant = values[0]
        self.matrix = values[1:] - values[0]


class Dense(Operation):
    """A convolution of images of one size, and the constant operations before it, as one matrix."""

    def __init__(self, taps: Taps, gives: torch.Size, prefix: Prefix) -> None:
        """`gives` is the size of one image after it, without the batch."""
        self.taps, self.gives, self.prefix = taps, gives, prefix
        self.index = taps.forth_index(taps.numbers)
        self.pixels = gives[1] * gives[2]

    def refresh(self) -> None:
        convolution = self.taps.convolution
        convolution.refresh()
        whole = self.taps.forth(convolution.weight).index_select(0, self.index).view(-1, self.pixels * self.gives[0])
        self.forth = self.prefix.matrix @ whole
        self.back = self.forth.t().contiguous()
        self.bias = torch.addmv(_repeated(convolution, self.pixels), whole.t(), self.prefix.constant)

    def forward(self, *inputs: Tensor) -> Tensor:
        return _as_images(torch.addmm(self.bias, inputs[0].flatten(1), self.forth), self.gives)

    def backward(self, gradient: Tensor, output: Tensor, inputs: Sequence[Tensor]) -> Gradients:
        return ((_as_rows(gradient) @ self.back).view_as(inputs[0]),)


class Banded(Operation):
    """A convolution of images of one size as a matrix for each row of pixels.

    A row depends on the rows around it alone, so most zeros of the whole matrix are left out.
    """

    def __init__(self, taps: Taps, given: torch.Size, gives: torch.Size) -> None:
        """`given` and `gives` are the sizes of one image, without the batch."""
        self.taps, self.given, self.gives = taps, given, gives
        self.forth_bands = [_band(taps.reaches[row]) for row in range(gives[1])]
        self.back_bands = [_band(taps.reaches[:, row]) for row in range(given[1])]
        forth = [taps.forth_index(taps.numbers[row, None][:, :, own]) for row, own in enumerate(self.forth_bands)]
        back = [taps.back_index(taps.numbers[own][:, :, row, None]) for row, own in enumerate(self.back_bands)]
        self.forth_index, self.back_index = torch.cat(forth), torch.cat(back)
        self.widths = given[2] * given[0], gives[2] * gives[0]  # of a row of pixels

    def refresh(self) -> None:
        convolution, (taken, given) = self.taps.convolution, self.widths
        convolution.refresh()
        forth = self.taps.forth(convolution.weight).index_select(0, self.forth_index).view(-1, given)
        back = self.taps.back(convolution.weight).index_select(0, self.back_index).view(-1, taken)
        self.forth = forth.split([taken * _length(own) for own in self.forth_bands])
        self.back = back.split([given * _length(own) for own in self.back_bands])
        self.bias = _repeated(convolution, self.gives[2])

    def forward(self, *inputs: Tensor) -> Tensor:
        rows, (taken, given) = _as_rows(inputs[0]), self.widths
        found = rows.new_empty(len(rows), given * self.gives[1])
        for row, (band, matrix) in enumerate(zip(self.forth_bands, self.forth, strict=True)):
            part = found[:, row * given : (row + 1) * given]
            torch.addmm(self.bias, rows[:, band.start * taken : band.stop * taken], matrix, out=part)
        return _as_images(found, self.gives)

    def backward(self, gradient: Tensor, output: Tensor, inputs: Sequence[Tensor]) -> Gradients:
        rows, (taken, given) = _as_rows(gradient), self.widths
        found = rows.new_empty(len(rows), taken * self.given[1])
        for row, (band, matrix) in enumerate(zip(self.back_bands, self.back, strict=True)):
            part = found[:, row * taken : (row + 1) * taken]
            torch.mm(rows[:, band.start * given : band.stop * given], matrix, out=part)
        return (_as_images(found, self.given),)


class Rows(Operation):
    """A linear layer after images were flattened, which they then need not be."""

    def __init__(self, linear: Linear, given: torch.Size) -> None:
        """`given` is the size of one image, without the batch."""
        self.linear, self.given = linear, given

    def refresh(self) -> None:
        self.linear.refresh()
        weight = self.linear.weight
        self.back = weight.view(-1, *self.given).permute(0, 2, 3, 1).flatten(1).contiguous()
        self.forth = self.back.t().contiguous()

    def forward(self, *inputs: Tensor) -> Tensor:
        rows, bias = _as_rows(inputs[0]), self.linear.bias
        return rows @ self.forth if bias is None else torch.addmm(bias, rows, self.forth)

    def backward(self, gradient: Tensor, output: Tensor, inputs: Sequence[Tensor]) -> Gradients:
        return (_as_images(gradient @ self.back, self.given),)


def _band(reaches: Tensor) -> slice:
    """From the first to the last row that is reached."""
    reached = reaches.nonzero().flatten().tolist()
    return slice(reached[0], reached[-1] + 1) if reached else slice(0, 0)


def _length(band: slice) -> int:
    length: int = band.stop - band.start
    return length


def _repeated(convolution: Convolution, pixels: int) -> Tensor:
    """Its bias for so many pixels."""
    weight, bias = convolution.weight, convolution.bias
    return weight.new_zeros(pixels * len(weight)) if bias is None else bias.repeat(pixels)


def _as_rows(images: Tensor) -> Tensor:
    """One row for each image: pixels, and channels within them."""
    return images.permute(0, 2, 3, 1).flatten(1)


def _as_images(rows: Tensor, size: torch.Size) -> Tensor:
    channels, height, width = size
    return rows.view(-1, height, width, channels).permute(0, 3, 1, 2)
