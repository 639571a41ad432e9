"""Who asks for a compiler, and what is said where there is none."""

from pathlib import Path

import pytest
import torch

from generalist import engine, platform_fingerprint
from generalist.config import EngineOptions
from generalist.data import Dataset
from generalist.engine import compiling, fallback
from generalist.errors import BadInput
from generalist.platform_fingerprint import fingerprint, has_compiler
from generalist.store import Store
from generalist.training import run
from tests.model_factory import made
from tests.training_factory import small

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
WIDE, NARROW = {"width": 64}, {"width": 8}


@pytest.mark.parametrize(
    ("own", "options", "on", "compiler", "size", "expected"),
    [
        (WIDE, EngineOptions(), CUDA, True, 1, True),
        (NARROW, EngineOptions(), CUDA, True, 1, False),
        (WIDE, EngineOptions(), CUDA, False, 1, False),
        (WIDE, EngineOptions(), CPU, True, 1, False),
        (WIDE, EngineOptions(), CUDA, True, 2, False),
        (WIDE, EngineOptions(eager=True), CUDA, True, 1, False),
        (WIDE, EngineOptions(compile=False), CUDA, True, 1, False),
        (NARROW, EngineOptions(compile=True), CPU, True, 1, True),
        (NARROW, EngineOptions(compile=True, eager=True), CPU, True, 1, False),
        (NARROW, EngineOptions(compile=True), CPU, True, 2, False),
    ],
)
def test_what_is_compiled(
    own: dict[str, int],
    options: EngineOptions,
    on: torch.device,
    compiler: bool,
    size: int,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By itself on GPUs alone, for wide networks, where a compiler is there; asked for, everywhere but among ranks."""
    monkeypatch.setattr(compiling, "has_compiler", lambda _: compiler)
    group = engine.ProcessGroup()
    group.size = size
    assert engine.compiles(made("small_cnn", **own), options, on, group) == expected


@pytest.mark.parametrize(
    ("device", "needs"), [("cpu", r"a C\+\+ compiler \(g\+\+\)"), ("cuda", "Triton and a C compiler")]
)
def test_asking_for_a_compiler_that_is_not_there_is_refused(
    device: str, needs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one sentence with the mend; a plain engine needs none, and auto goes without."""
    monkeypatch.setenv("PATH", "")
    for variable in ("CC", "CXX"):
        monkeypatch.delenv(variable, raising=False)
    assert not has_compiler(device)
    with pytest.raises(BadInput, match=rf"engine\.compile is true, and .* {needs}.* set engine\.compile to auto"):
        engine.check_compiler(EngineOptions(compile=True), device)
    engine.check_compiler(EngineOptions(compile=True, eager=True), device)
    engine.check_compiler(EngineOptions(), device)


def test_it_is_refused_before_any_work(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training says so when it begins, and stores nothing."""
    monkeypatch.setenv("CXX", "a-compiler-that-is-not-there -O2")
    with pytest.raises(BadInput, match=r"engine\.compile is true"):
        run(small("engine.compile=true"), dataset, Store(tmp_path / "store"))
    assert not [own for own in (tmp_path / "store").rglob("*") if own.is_file()]


def test_a_compiler_decides_bits_on_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """There it is part of a state's key; keys on a CPU, and those of measurements, don't know of it."""
    monkeypatch.setattr(platform_fingerprint, "_card", lambda: {"device": "a GPU"})
    keys = []
    for there in (True, False):
        monkeypatch.setattr(platform_fingerprint, "has_compiler", lambda _, there=there: there)
        keys.append([fingerprint("cuda", 1), fingerprint("cuda", 1, evaluation=True), fingerprint("cpu", 1)])
    assert [one == other for one, other in zip(*keys, strict=True)] == [False, True, True]


@pytest.mark.parametrize(
    ("size", "compiler", "reason"),
    [(2, True, "several processes share a batch"), (1, False, "Triton and a C compiler")],
)
def test_what_is_expected_to_be_compiled_and_is_not_is_told(
    size: int, compiler: bool, reason: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A wide network on a GPU goes on without, and says why."""
    fallback.warn_once.cache_clear()
    monkeypatch.setattr(compiling, "has_compiler", lambda _: compiler)
    group = engine.ProcessGroup()
    group.size = size
    assert not engine.compiles(made("small_cnn", **WIDE), EngineOptions(), CUDA, group)
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith("nothing is compiled") and reason in told
    fallback.warn_once.cache_clear()
