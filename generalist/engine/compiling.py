"""torch.compile for training passes and for attacks, each tried beside the plain way before it is taken."""

import functools
import weakref
from collections.abc import Callable, Hashable, Sequence
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from generalist.config import EngineOptions
from generalist.engine.attack_network import AttackNetwork, wide
from generalist.engine.falling_back import ALONE, brief, warned
from generalist.engine.parallel import Group
from generalist.errors import BadInput
from generalist.models import Classifier
from generalist.numerics import has_compiler
from generalist.tensors import Images

_CLOSE, _ROUGH = 0.05, 0.5
"""How far numbers may be from the plain ones, relative, where all of it is float32 (TF32 included), and where not. It
is to find wrong code: two orders of rounding in bfloat16 differ by some percent."""

_NEEDS = {"cpu": "a C++ compiler (g++)", "cuda": "Triton and a C compiler (gcc or clang)"}

Both = Callable[[], tuple[Sequence[Tensor], Sequence[Tensor]]]
"""The numbers of the compiled way, and those of the plain one."""


def check_compiler(options: EngineOptions, device: str) -> None:
    """Say that what is asked for can't be had.

    Raises:
        BadInput: `engine.compile` is true, and there is no compiler.
    """
    if options.compile is True and not options.plain and not has_compiler(device):
        raise BadInput(
            f"engine.compile is true, and torch.compile on {device} needs {_NEEDS[device]}, which is not there: install"
            " it, or set engine.compile to auto"
        )


def compiles(model: nn.Module, options: EngineOptions, on: torch.device, group: Group) -> bool:
    """Whether passes of a network are compiled; where it would be expected and can't be, that is told."""
    wanted = options.compile is True or (options.compile == "auto" and on.type == "cuda" and wide(model))
    if options.plain or not wanted:
        return False
    if group.size > 1:
        warned("nothing is compiled where several processes share a batch, as BatchNorms exchange numbers inside")
        return False
    if options.compile == "auto" and not has_compiler(on.type):
        warned(f"nothing is compiled: torch.compile needs {_NEEDS[on.type]}, which is not there")
        return False
    return True


def compile_passes(model: Classifier, attackable: AttackNetwork, *, batch_size: int) -> None:
    """Let a network in its present mode, and the one that attacks see, be computed by compiled code.

    Both stay the objects that they are, with their parameters and names. Only batches of `batch_size` images, or of a
    multiple of it, are compiled: each shape costs minutes, and an epoch's last batch comes once.
    """
    for network in (model, attackable.network):
        vars(network)["forward"] = CompiledForward(network, batch_size)


class CompileCheck:
    """Whether compiled code is there and gives the plain numbers: asked once for each kind of input.

    Compilers run at the first call, and may fail there in any way. After one failure nothing compiled is taken.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._passed: set[Hashable] = set()
        self._failed = False

    @property
    def asked(self) -> bool:
        """Whether anything was computed yet."""
        return bool(self._passed)

    @property
    def taken(self) -> bool:
        """Whether compiled code is in use."""
        return self.asked and not self._failed

    def passes(self, kind: Hashable, both: Both, *, rough: bool) -> bool:
        """Whether the compiled way is to be taken."""
        if kind not in self._passed and not self._failed:
            with ALONE:
                self._failed = not self._agree(both, _ROUGH if rough else _CLOSE)
            self._passed.add(kind)
        return not self._failed

    def fail(self, error: Exception) -> None:
        """Compiled code is taken no more."""
        self._failed = True
        warned(f"torch.compile failed for {self._what}, which goes on without: {brief(error)}")

    def _agree(self, both: Both, within: float) -> bool:
        try:
            found, expected = both()
            agree = all((a - b).norm() <= within * b.norm() for a, b in zip(found, expected, strict=True))
        except Exception as error:  # noqa: BLE001  a compiler fails in many ways, and none is worth a training
            self.fail(error)
            return False
        if not agree:
            warned(f"torch.compile gives other numbers for {self._what}, which goes on without")
        return agree


class CompiledForward:
    """A network's `forward` with gradients in the mode in which it was made; any other call is computed plainly."""

    def __init__(self, model: nn.Module, batch_size: int) -> None:
        self._model, self._mode = weakref.ref(model), model.training  # which holds this
        self._batch_size = batch_size
        self._fast = _compiled(_forward, _kind(type(model), [*model.parameters(), *model.buffers()]))
        self.check = CompileCheck("the training pass" if model.training else "the attacked network")

    def __call__(self, images: Images, *more: Any) -> Tensor:
        model = self._model()
        assert model is not None  # it is being called
        usual = torch.is_grad_enabled() and model.training == self._mode and len(images) % self._batch_size == 0
        if more or not usual:
            return _forward(model, images, *more)
        rough = torch.is_autocast_enabled(images.device.type)
        kind = (images.shape, images.stride(), images.dtype, images.requires_grad, rough)
        if self.check.passes(kind, lambda: self._both(model, images), rough=rough):
            try:
                found: Tensor = self._fast(model, images)
                return found
            except Exception as error:  # noqa: BLE001  something that no kind tells made torch compile again
                self.check.fail(error)
        return _forward(model, images)

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., Tensor]:
        """A copy of the network is computed plainly: what this one compiles must not answer for it."""
        copied = memo[id(self._model())]
        return MethodType(type(copied).forward, copied)

    def _both(self, model: nn.Module, images: Images) -> tuple[list[Tensor], list[Tensor]]:
        """Results and gradients; nobody's `.grad` moves, and BatchNorm's statistics come back."""
        kept = [(own, own.clone()) for own in model.buffers()]
        try:
            return self._numbers(self._fast, model, images), self._numbers(_forward, model, images)
        finally:
            for own, before in kept:
                own.data.copy_(before)  # unseen by autograd, which may hold them for another pass of this step
            torch.clear_autocast_cache()  # casts of weights that lead into graphs which are gone

    @staticmethod
    def _numbers(forward: Callable[..., Tensor], model: nn.Module, images: Images) -> list[Tensor]:
        leaf = images.detach().requires_grad_(images.requires_grad)
        result = forward(model, leaf)
        wanted = [own for own in (leaf, *model.parameters()) if own.requires_grad]
        found = torch.autograd.grad(result.float().square().mean(), wanted, allow_unused=True)
        return [result.detach().float(), torch.cat([own.flatten() for own in found if own is not None])]


def _forward(model: nn.Module, *inputs: Any) -> Tensor:
    """The network's own `forward`, beside one that was put upon it."""
    result: Tensor = type(model).forward(model, *inputs)
    return result


def _kind(of: type, tensors: Sequence[Tensor]) -> Hashable:
    """Equal for networks that compiled code may be shared by, as that of two experts."""
    return of, tuple((own.shape, own.dtype, own.device) for own in tensors)


@functools.lru_cache(maxsize=64)
def _compiled(function: FunctionType, kind: Hashable) -> Callable[..., Any]:
    """A copy of a function for one kind of network, compiled without gaps, so that it works as a whole or fails.

    torch counts how often one code was compiled, over all networks of a process, and after eight times refuses.
    """
    del kind  # which of the copies it is: the cache looks at it
    own = FunctionType(
        function.__code__.replace(),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    own.__kwdefaults__ = function.__kwdefaults__
    compiled: Callable[..., Any] = torch.compile(own, fullgraph=True, dynamic=False)
    return compiled
