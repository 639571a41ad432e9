"""torch.compile: the same numbers as without, or a fall back to the plain way."""

import copy
import gc
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import jaxtyping
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generalist import engine
from generalist.config import ModelOptions
from generalist.engine import compiling, fallback
from generalist.expert_state import ExpertSpec, initial_state
from generalist.experts import Expert
from generalist.models import Classifier
from generalist.models.contract import Architecture
from generalist.platform_fingerprint import has_compiler
from generalist.tensors import Batch, Images, ImageShape, Weights
from tests.model_factory import GREY, numbers
from tests.training_factory import small

pytestmark = pytest.mark.long

CPU = torch.device("cpu")
Fake = Callable[[Callable[..., Any]], Callable[..., Any]]
"""What stands in for torch.compile."""
needs_compiler = pytest.mark.skipif(not has_compiler("cpu"), reason="there is no C++ compiler here")
torchs_own = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


class Normed(Architecture):
    """A convolution, BatchNorm, a linear layer."""

    name: Literal["normed"] = "normed"

    def build(self, shape: ImageShape) -> Classifier:
        return NormedNetwork(shape)


class NormedNetwork(Classifier):
    """What `Normed` builds."""

    def __init__(self, shape: ImageShape) -> None:
        super().__init__(shape)
        self.conv = nn.Conv2d(shape.channels, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.linear = nn.Linear(3 * (shape.height - 2) * (shape.width - 2), shape.classes)

    def embed(self, normalised: Images) -> Tensor:
        """One convolution."""
        return F.relu(self.norm(self.conv(normalised))).flatten(1)


@pytest.fixture(autouse=True)
def _from_the_beginning() -> Iterator[None]:
    """Nothing is compiled yet and nobody was warned; shapes are not checked, as compilers can't read those checks."""
    compiling._compiled.cache_clear()
    fallback.warn_once.cache_clear()
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    compiling._compiled.cache_clear()
    fallback.warn_once.cache_clear()


def experts(model: ModelOptions, *overrides: str) -> list[Expert]:
    """Return the natural and the robust expert of the small configuration, with another network."""
    config = small("experts.robust.objective.attack.steps=2", *overrides)
    found = []
    for options in config.experts.values():
        spec = ExpertSpec(options, None, config.seed, 8, 10, config.engine)
        weights = engine.initial_weights(model, GREY, config.seed)
        found.append(Expert(spec, initial_state(weights, spec), model, GREY, CPU))
    return found


def two_steps(expert: Expert, *, last: int = 8) -> Weights:
    """Weights and statistics after two steps, the second on so many images."""
    for index, size in enumerate((8, last)):
        labels = torch.arange(size) % 10
        expert.step(Batch(numbers(size, seed=index), labels, labels), index + 1, index)
    return expert.state().weights


def side_by_side(own: Sequence[Expert]) -> list[Weights]:
    """Two steps of each, in threads that begin at once, as tasks do."""
    found: dict[int, Weights] = {}

    def work(index: int) -> None:
        with engine.threads(1):
            found[index] = two_steps(own[index])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(own))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[index] for index in range(len(own))]


def close(found: Weights, expected: Weights) -> bool:
    """To 1e-4 of each tensor's norm."""
    pairs = [(found[name].float(), tensor.float()) for name, tensor in expected.items()]
    return all((one - other).norm() <= 1e-4 * other.norm() + 1e-7 for one, other in pairs)


def same(found: Weights, expected: Weights) -> bool:
    """To the bit."""
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], tensor) for name, tensor in expected.items()
    )


def taken(expert: Expert) -> bool:
    """Whether attacks were computed by compiled code."""
    assert isinstance(expert.learner.frozen, engine.FrozenNetwork)
    forward = vars(expert.learner.frozen.network)["forward"]
    assert isinstance(forward, compiling.CompiledForward)
    return forward.taken


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was told."""
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@needs_compiler
@torchs_own
@pytest.mark.parametrize("model", [small().model, Normed()], ids=["digits", "normed"])
def test_compiled_experts_learn_what_others_learn(model: ModelOptions, caplog: pytest.LogCaptureFixture) -> None:
    """Weights and running statistics after two steps, of experts in threads; one after them compiles nothing."""
    expected = [two_steps(own) for own in experts(model, "engine.compile=false")]
    own = experts(model, "engine.compile=true")
    found = side_by_side(own)
    assert all(close(one, other) for one, other in zip(found, expected, strict=True))
    assert [taken(expert) for expert in own] == [False, True]  # the natural one attacks nothing
    assert warnings(caplog) == []
    before = compiling._compiled.cache_info().misses
    del own
    gc.collect()  # they are gone when a round begins or an expert goes back
    with torch.compiler.set_stance("fail_on_recompile"):
        again = side_by_side(experts(model, "engine.compile=true"))
    assert all(close(one, other) for one, other in zip(again, expected, strict=True))
    assert compiling._compiled.cache_info().misses == before
    assert warnings(caplog) == []


def raising(function: Callable[..., Any]) -> Callable[..., Any]:
    """No compiler that works."""

    def broken(*_: Any) -> Any:
        raise RuntimeError("CppCompileError: C++ compile error\nand a page more")

    return broken


class Thrown(torch.autograd.Function):
    """Fails on the way back, which torch compiles when it is first gone."""

    @staticmethod
    def forward(_ctx: Any, given: Tensor) -> Tensor:
        return given.clone()

    @staticmethod
    def backward(_ctx: Any, *_: Any) -> Any:
        raise RuntimeError("no backward pass")


def raising_backward(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile to what fails at the backward pass alone."""

    def broken(*given: Any) -> Any:
        result = function(*given)
        return Thrown.apply(result) if isinstance(result, Tensor) and result.requires_grad else raising(function)()

    return broken


def wrong(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile to what works, with other numbers."""

    def doubled(*given: Any) -> Any:
        result = function(*given)
        return 2 * result if isinstance(result, Tensor) else [2 * own for own in result]

    return doubled


def raising_later(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile to what works, then fails where something makes it compile again."""
    calls: list[int] = []

    def tiring(*given: Any) -> Any:
        calls.append(1)
        return function(*given) if len(calls) < 3 else raising(function)()

    return tiring


@pytest.mark.parametrize("compiler", [raising, raising_backward, raising_later, wrong])
def test_a_compiler_that_fails_costs_nothing_but_time(
    compiler: Fake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """All bits are those without it, running statistics too; it is told once."""
    expected = [two_steps(own) for own in experts(Normed(), "engine.compile=false")]
    monkeypatch.setattr(torch, "compile", lambda function, **_: compiler(function))
    for _ in range(2):
        own = experts(Normed(), "engine.compile=true")
        assert all(same(two_steps(expert), other) for expert, other in zip(own, expected, strict=True))
        assert not any(taken(expert) for expert in own)
    (told,) = warnings(caplog)
    assert "attacks go on without" in told and "\n" not in told


def test_only_whole_batches_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch's last batch is smaller, and to compile anew for it would double the start."""
    sizes: list[int] = []

    def noting(function: Callable[..., Any]) -> Callable[..., Any]:
        def fast(model: nn.Module, images: Tensor) -> Any:
            sizes.append(len(images))
            return function(model, images)

        return fast

    expected = [two_steps(own, last=5) for own in experts(Normed(), "engine.compile=false")]
    monkeypatch.setattr(torch, "compile", lambda function, **_: noting(function))
    own = experts(Normed(), "engine.compile=true")
    assert all(same(two_steps(expert, last=5), other) for expert, other in zip(own, expected, strict=True))
    assert sizes == [8] * (1 + 2)  # a check, a step of two iterations


def test_a_compiled_network_is_the_same_object(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its names stay, and a copy of it is computed plainly: its own weights, not those of the first."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    frozen = experts(Normed(), "engine.compile=true")[1].learner.frozen
    assert isinstance(frozen, engine.FrozenNetwork)
    network = frozen.network
    assert list(network.state_dict()) == list(Normed().build(GREY).state_dict())
    twin = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    images = numbers(8).requires_grad_()
    assert not twin(images).any()
    assert network(images).any()


@needs_compiler
@torchs_own
def test_one_expert_compiles_while_another_attacks(caplog: pytest.LogCaptureFixture) -> None:
    """As the mark that torch sets upon the process while it compiles makes compiled code fail in other threads."""
    threads, failed = [], []

    def work(width: int) -> None:
        expert = experts(small(f"model.width={width}").model, "engine.compile=true")[1]
        two_steps(expert)
        failed.append(not taken(expert))

    for width in (2, 3, 4):
        threads.append(threading.Thread(target=work, args=(width,)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert failed == [False] * 3 and warnings(caplog) == []
