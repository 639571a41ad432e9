"""Small convolutions of a program as matrices: on a CPU one multiplication then costs less than the convolution.

A 3×3 convolution of 4×4 pixels touches 9 of 16 pixels for each result, so its matrix is mostly full. What comes before
the first one (normalisation, rearranging pixels) never changes and is multiplied into it.
"""

from collections.abc import Mapping, Sequence

import torch

from generalist.engine.matrices import Banded, Dense, Prefix, Rows, Taps
from generalist.engine.operations import (
    Call,
    Convolution,
    Flatten,
    Linear,
    Pad,
    Relu,
    Scale,
    Shift,
    Unshuffle,
)
from generalist.engine.program import Program

_LARGEST = 2**19  # entries of a matrix: beyond, it takes longer to fill than it saves
_FULLER = 2.0  # how many times more multiplications a matrix may take


def condensed(program: Program, image: torch.Size) -> Program:
    """The same with small convolutions as matrices, where it has any; in bfloat16 as it is.

    Args:
        program: on the CPU.
        image: channels, height, width.
    """
    if program.dtype != torch.float32:
        return program
    calls = _condensed(program.calls, image)
    return program.with_calls(calls) if any(isinstance(own, Dense | Banded) for own, _, _ in calls) else program


def _condensed(calls: Sequence[Call], image: torch.Size) -> list[Call]:
    """Values keep their numbers."""
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
            before = Prefix([own for own, _, _ in constant], image)
            taps = Taps(operation, sizes[start], sizes[place])
            found.append((Dense(taps, sizes[place], before), (0,), place))
            constant = []
        else:
            given, gives = sizes[inputs[0]], sizes[place]
            found.append((Banded(Taps(operation, given, gives), given, gives), inputs, place))
    return _unflattened([*constant, *found], sizes)


def _unflattened(calls: Sequence[Call], sizes: Mapping[int, torch.Size]) -> list[Call]:
    """Linear layers take the images that matrices give, which lie otherwise in memory than flattening wants them."""
    by_place = {place: (operation, inputs) for operation, inputs, place in calls}
    found: list[Call] = []
    for operation, inputs, place in calls:
        flatten, source = by_place.get(inputs[0], (None, (0,)))
        users = [own for own, taken, _ in calls if inputs[0] in taken]
        if isinstance(operation, Linear) and isinstance(flatten, Flatten) and users == [operation]:
            maker, before = by_place.get(source[0], (None, (0,)))
            if isinstance(maker, Relu):
                maker, _ = by_place.get(before[0], (None, (0,)))
            if isinstance(maker, Dense | Banded):
                found = [own for own in found if own[2] != inputs[0]]
                found.append((Rows(operation, sizes[source[0]]), source, place))
                continue
        found.append((operation, inputs, place))
    return found


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
