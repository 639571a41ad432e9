"""torch.compile for attacks on training images, tried beside the plain way before it is taken."""

import contextlib
import functools
import weakref
from collections.abc import Callable, Hashable
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from generalist.config import EngineOptions
from generalist.engine.fallback import ALONE, first_line_of, warn_once
from generalist.engine.networks import FrozenNetwork, wide
from generalist.engine.process_group import ProcessGroup
from generalist.errors import BadInput
from generalist.platform_fingerprint import has_compiler
from generalist.tensors import Images

_CLOSE, _ROUGH = 0.05, 0.5
"""How far numbers may be from the plain ones, relative, where all of it is float32 (TF32 included), and where not. It
is to find wrong code: two orders of rounding in bfloat16 differ by some percent."""

_NEEDS = {"cpu": "a C++ compiler (g++)", "cuda": "Triton and a C compiler (gcc or clang)"}


def check_compiler(options: EngineOptions, device: str) -> None:
    """Say that what is asked for can't be had.

    Raises:
        BadInput: `engine.compile` is true, and there is no compiler.
    """
    if options.compile is True and not options.eager and not has_compiler(device):
        raise BadInput(
            f"engine.compile is true, and torch.compile on {device} needs {_NEEDS[device]}, which is not there: install"
            " it, or set engine.compile to auto"
        )


def compiles(model: nn.Module, options: EngineOptions, on: torch.device, group: ProcessGroup) -> bool:
    """Return whether attacks on a network are compiled; where it would be expected and can't be, warn."""
    wanted = options.compile is True or (options.compile == "auto" and on.type == "cuda" and wide(model))
    if options.eager or not wanted:
        return False
    if group.size > 1:
        warn_once("nothing is compiled where several processes share a batch")
        return False
    if options.compile == "auto" and not has_compiler(on.type):
        warn_once(f"nothing is compiled: torch.compile needs {_NEEDS[on.type]}, which is not there")
        return False
    return True


def compile_attacks(frozen: FrozenNetwork, *, batch_size: int) -> None:
    """Let the network that attacks see be computed by compiled code.

    It stays the object that it is, with its parameters and names. Only batches of `batch_size` images, or of a
    multiple of it, are compiled: each shape costs minutes, and an epoch's last batch comes once.
    """
    vars(frozen.network)["forward"] = CompiledForward(frozen.network, batch_size)


class CompiledForward:
    """A frozen network's `forward` where images need gradients; any other call is computed plainly.

    Compiled code is tried beside the plain one for each kind of input. Compilers run at the first call, and may fail
    there in any way; after one failure nothing compiled is taken.
    """

    def __init__(self, model: nn.Module, batch_size: int) -> None:
        self._model = weakref.ref(model)  # which holds this
        self._batch_size = batch_size
        tensors = [*model.parameters(), *model.buffers()]
        kind: Hashable = type(model), tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in tensors)
        self._fast = _compiled(kind)
        self._passed: set[Hashable] = set()
        self._failed = False

    @property
    def taken(self) -> bool:
        """Whether compiled code is in use."""
        return bool(self._passed) and not self._failed

    def __call__(self, images: Images, *more: Any) -> Tensor:
        model = self._model()
        assert model is not None  # it is being called
        usual = torch.is_grad_enabled() and images.requires_grad and len(images) % self._batch_size == 0
        if usual and not more and not self._failed:  # with conditions, attacks are of a part of the batch
            # Compiling in one thread sets a flag of the whole process, which makes compiled code fail in another.
            with ALONE, contextlib.suppress(_RefusedError):
                return self._taken(model, images)
        return _forward(model, images, *more)

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., Tensor]:
        """Compute a copy of the network plainly: what this one compiles must not answer for it."""
        copied = memo[id(self._model())]
        return MethodType(type(copied).forward, copied)

    def _taken(self, model: nn.Module, images: Images) -> Tensor:
        """Return the compiled result.

        Raises:
            _RefusedError: compiled code fails, or gives other numbers; a warning says which.
        """
        rough = torch.is_autocast_enabled(images.device.type)
        kind = (images.shape, images.stride(), images.dtype, rough)
        try:
            if kind not in self._passed:
                agree = self._agree(model, images, _ROUGH if rough else _CLOSE)
                self._passed.add(kind)
                if not agree:
                    raise _RefusedError("gives other numbers")
            result: Tensor = self._fast(model, images)
            return result
        except Exception as error:
            self._failed = True
            reason = str(error) if isinstance(error, _RefusedError) else f"failed ({first_line_of(error)})"
            warn_once(f"torch.compile {reason}: attacks go on without")
            raise _RefusedError from error

    def _agree(self, model: nn.Module, images: Images, within: float) -> bool:
        """Return whether results and gradients are near to the plain ones."""
        actual, expected = (_numbers(forward, model, images) for forward in (self._fast, _forward))
        return all((a - b).norm() <= within * b.norm() for a, b in zip(actual, expected, strict=True))


class _RefusedError(Exception):
    """Compiled code is not to be taken."""


def _numbers(forward: Callable[..., Tensor], model: nn.Module, images: Images) -> tuple[Tensor, Tensor]:
    leaf = images.detach().requires_grad_()
    result = forward(model, leaf)
    (gradient,) = torch.autograd.grad(result.float().square().mean(), leaf)
    return result.detach().float(), gradient


def _forward(model: nn.Module, *inputs: Any) -> Tensor:
    """Return the output of the class's `forward`, also where another one has replaced it on the instance."""
    result: Tensor = type(model).forward(model, *inputs)
    return result


@functools.lru_cache(maxsize=64)
def _compiled(kind: Hashable) -> Callable[..., Any]:
    """Return a copy of `_forward`, compiled without gaps, so that it works as a whole or fails; one a kind of network.

    torch counts how often one code was compiled, over all networks of a process, and after eight times refuses.
    """
    del kind  # which of the copies it is: the cache looks at it; two experts' networks are of one kind
    function = FunctionType(
        _forward.__code__.replace(),
        _forward.__globals__,
        _forward.__name__,
        _forward.__defaults__,
        _forward.__closure__,
    )
    function.__kwdefaults__ = _forward.__kwdefaults__
    compiled: Callable[..., Any] = torch.compile(function, fullgraph=True, dynamic=False)
    return compiled
