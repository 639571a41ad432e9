"""TF32 and deterministic algorithms: who computes how, though torch has one setting for the whole process."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from generalist import engine
from generalist.attacks import autoattack, model_adapter
from generalist.data import Dataset
from generalist.evaluation import accuracy
from generalist.export import check_parity, export
from generalist.models import Head
from generalist.threats import Threat
from tests.model_factory import made, numbers
from tests.training_factory import finish, small

CUDA = torch.device("cuda")  # nothing is computed there: the settings can be read without a GPU


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    """The process's settings."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark
    yield
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = before


def allowed() -> tuple[bool, bool]:
    """TF32 in products and in convolutions."""
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def together(*works: Callable[[], None]) -> None:
    """Threads that begin at once; whoever is not done in time waits for good."""
    failures: list[BaseException] = []

    def watched(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  it is raised where it is seen
            failures.append(error)

    threads = [threading.Thread(target=watched, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert not any(thread.is_alive() for thread in threads)
    if failures:
        raise failures[0]


def _failing() -> None:
    with engine.arithmetic(CUDA):
        assert allowed() == (False, False)
        raise KeyError


def test_settings_hold_inside_and_an_inner_block_has_its_own() -> None:
    """Also where the inner one fails; algorithms are deterministic in both."""
    with engine.arithmetic(CUDA, tf32=True):
        assert allowed() == (True, True)
        with pytest.raises(KeyError):
            _failing()
        assert allowed() == (True, True)
        assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
    with engine.arithmetic(CUDA):
        assert allowed() == (False, False)


def test_nothing_is_left_behind() -> None:
    """A program around us finds its own settings again, once nobody is inside."""
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = True, False
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = False, True
    with engine.arithmetic(CUDA, tf32=True), engine.arithmetic(CUDA):
        assert allowed() == (False, False)
    assert allowed() == (True, False)
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (False, True)


def test_on_a_cpu_nothing_happens() -> None:
    """There is no TF32."""
    before = allowed()
    with engine.arithmetic(torch.device("cpu"), tf32=not before[1]):
        assert allowed() == before


def test_threads_that_want_the_same_go_side_by_side() -> None:
    """Both are inside at once."""
    both = threading.Barrier(2, timeout=10)

    def work() -> None:
        with engine.arithmetic(CUDA, tf32=True):
            both.wait()

    together(work, work)


def test_threads_that_each_step_aside_for_an_inner_block_wait_for_nobody() -> None:
    """Two trainings that both come to verify at the same time: each puts its setting down first."""
    both = threading.Barrier(2, timeout=10)

    def work() -> None:
        with engine.arithmetic(CUDA, tf32=True):
            both.wait()
            with engine.arithmetic(CUDA):
                assert allowed() == (False, False)
            assert allowed() == (True, True)

    together(work, work)


def test_two_threads_in_turn_keep_no_third_one_out() -> None:
    """Somebody is always inside with TF32; who wants it off comes in all the same."""
    over = threading.Event()

    def training() -> None:
        until = time.monotonic() + 10
        while not over.is_set() and time.monotonic() < until:
            with engine.arithmetic(CUDA, tf32=True):
                time.sleep(0.01)
        assert over.is_set()

    def validating() -> None:
        time.sleep(0.05)
        with engine.arithmetic(CUDA):
            over.set()

    together(training, training, validating)


@pytest.mark.parametrize("seed", range(3))
def test_nobody_computes_with_another_s_setting(seed: int) -> None:
    """However four threads come, nest and go."""

    def work(draw: random.Random) -> None:
        for _ in range(150):
            wanted = [draw.random() < 0.5 for _ in range(draw.randint(1, 3))]
            _nested(wanted)

    def _nested(wanted: list[bool]) -> None:
        if not wanted:
            time.sleep(0)
            return
        with engine.arithmetic(CUDA, tf32=wanted[0]):
            assert allowed() == (wanted[0], wanted[0])
            _nested(wanted[1:])
            assert allowed() == (wanted[0], wanted[0])

    together(*(lambda own=index: work(random.Random(seed + 10 * own)) for index in range(4)))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """The settings under which blocks are, from the outermost to the innermost."""
    asked: list[bool] = []

    @contextmanager
    def arithmetic(_on: torch.device, *, tf32: bool = False) -> Iterator[None]:
        asked.append(tf32)
        yield
        asked.pop()

    monkeypatch.setattr(engine, "arithmetic", arithmetic)
    return asked


@pytest.mark.parametrize("tf32", [True, False])
def test_steps_are_as_configured_and_validation_is_float32(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[bool], tf32: bool
) -> None:
    """Every attack of a training under `engine.tf32`, every one of a measurement without it."""
    seen: dict[str, set[bool]] = {"training": set(), "validation": set()}
    forward, logits_of = engine.FrozenNetwork.forward, accuracy.logits_of

    def trained(self, images):  # type: ignore[no-untyped-def]
        seen["training"].add(asked[-1])
        return forward(self, images)

    def validated(network, images):  # type: ignore[no-untyped-def]
        seen["validation"].add(asked[-1])
        return logits_of(network, images)

    monkeypatch.setattr(engine.FrozenNetwork, "forward", trained)
    monkeypatch.setattr(accuracy, "logits_of", validated)
    short = ("training.epochs=2", "mixing.warm_up=1", "training.batch_size=4096")
    finish(small(*short, f"engine.tf32={tf32}"), dataset, tmp_path / "store")
    assert seen == {"training": {tf32}, "validation": {False}}


@pytest.mark.long
def test_parity_is_float32(tmp_path: Path, asked: list[bool]) -> None:
    """Whatever is allowed around it."""
    model, seen = made("small_cnn").eval(), []
    path = tmp_path / "model.onnx"
    export(model, path, metadata={}, opset=18)
    decision = type(model).decision
    model.decision = lambda raw: (seen.append(list(asked)), decision(model, raw))[1]  # type: ignore[method-assign]
    with engine.arithmetic(CUDA, tf32=True):
        nothing = np.empty((0, 1, 8, 8), np.float32)
        check_parity(model, path, np.zeros((3, 1, 8, 8), np.uint8), nothing, tolerance=1e-4)
    assert seen and all(own[-1] is False for own in seen)


@pytest.mark.usefixtures("short_gradients")
def test_a_search_in_tf32_asks_the_decision_without_it(monkeypatch: pytest.MonkeyPatch, asked: list[bool]) -> None:
    """Gradients come from where TF32 is allowed, and nothing is broken there alone."""
    model = made("small_cnn").eval()
    images, seen = numbers(6), {"search": set(), "decision": set()}
    monkeypatch.setattr(model_adapter, "_has_tf32", lambda _: True)
    decision = Head.decision

    def watched(head: Head, raw: torch.Tensor) -> torch.Tensor:
        seen["search" if raw.requires_grad else "decision"].add(asked[-1])
        return decision(head, raw)

    monkeypatch.setattr(Head, "decision", watched)
    labels = model(images).argmax(1)
    with engine.arithmetic(CUDA):
        autoattack(model, images, labels, Threat("linf", 0.05), attacks=["apgd-ce"], precision="tf32")
    assert True in seen["search"]
    assert False in seen["decision"]
