"""The form that a network gives to what is stored of it: names, shapes and dtypes; and every number finite."""

from collections.abc import Mapping, Sequence
from typing import Self

from torch import Tensor

from generalist.config import ModelOptions
from generalist.models import build
from generalist.tensors import ImageShape


class WeightsSpec:
    """Of weights, and of what an optimizer keeps beside each parameter."""

    def __init__(self, weights: Mapping[str, Tensor], parameters: list[Tensor]) -> None:
        self._weights = {name: (tensor.shape, tensor.dtype) for name, tensor in weights.items()}
        self._parameters = [(tensor.shape, tensor.dtype) for tensor in parameters]

    @classmethod
    def of(cls, options: ModelOptions, shape: ImageShape) -> Self:
        """Return the form of a network."""
        model = build(options, shape)
        return cls(model.state_dict(), list(model.parameters()))

    def check(self, weights: Mapping[str, Tensor]) -> None:
        """Let pass weights of this network.

        Raises:
            ValueError: a name, shape or dtype is another one, or a number is not finite.
        """
        if {name: (tensor.shape, tensor.dtype) for name, tensor in weights.items()} != self._weights:
            raise ValueError("weights of another network")
        check_finite(weights)

    def check_optimizer(self, tensors: Mapping[str, Tensor], beside: Sequence[Tensor] = ()) -> None:
        """Let pass tensors of an optimizer of this network by `index/name`: as large as the parameter, or one number.

        The parameters of what is trained beside it follow its own; they are some of `beside`.

        Raises:
            LookupError, ValueError: no such parameter, another shape or dtype, or a number that is not finite.
        """
        for key, tensor in tensors.items():
            index = int(key.partition("/")[0])
            own = self._parameters[index : index + 1] or [(one.shape, one.dtype) for one in beside]
            if not own:
                raise LookupError(f"{key} is of no parameter")
            if tensor.ndim and (tensor.shape, tensor.dtype) not in own:
                raise ValueError(f"{key} is {tensor.dtype} {list(tensor.shape)}")
        check_finite(tensors)


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Let pass finite numbers.

    Raises:
        ValueError: a number is not finite.
    """
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} is not finite")
