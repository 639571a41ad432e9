"""What decides the bits of a result beside configuration and code is in its fingerprint, and nothing else is."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from generalist.platform_fingerprint import fingerprint

ASK = "import json; from generalist.platform_fingerprint import fingerprint; print(json.dumps(fingerprint('cpu', 1)))"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ATEN_CPU_CAPABILITY", "default"),
        ("ONEDNN_MAX_CPU_ISA", "SSE41"),
        ("DNNL_MAX_CPU_ISA", "SSE41"),
        ("ONEDNN_DEFAULT_FPMATH_MODE", "BF16"),
        ("MKL_CBWR", "COMPATIBLE"),
        ("MKL_ENABLE_INSTRUCTIONS", "SSE4_2"),
    ],
)
def test_variables_that_choose_other_kernels_count(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under each of them the same training gave other bits under the same key."""
    monkeypatch.delenv(variable, raising=False)
    before = fingerprint("cpu", 1)
    monkeypatch.setenv(variable, value)
    assert fingerprint("cpu", 1) != before


@pytest.mark.parametrize("variable", ["ONEDNN_VERBOSE", "MKL_NUM_THREADS", "MKL_DYNAMIC", "OMP_NUM_THREADS", "HOME"])
def test_variables_without_effect_on_bits_do_not_count(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads are set for each task."""
    before = fingerprint("cpu", 1)
    monkeypatch.setenv(variable, "2")
    assert fingerprint("cpu", 1) == before


@pytest.mark.long
def test_what_torch_makes_of_the_processor_counts() -> None:
    """A process that may not use its vector instructions computes other bits."""
    environment = os.environ | {"ATEN_CPU_CAPABILITY": "default"}
    done = subprocess.run([sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["instructions"].split()[0] == "DEFAULT"
    assert str(fingerprint("cpu", 1)["instructions"]).split()[0] == torch.backends.cpu.get_cpu_capability()


def test_the_instruction_sets_and_caches_of_the_processor_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name and the number of its cores don't."""
    from generalist import platform_fingerprint

    def instructions(**other: Any) -> str:
        platform_fingerprint._instructions.cache_clear()
        known = {"avx2": True, "l2_cache_size": 2**19, "num_logical_cores": 2, "cpu_name": "one"} | other
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
        return str(fingerprint("cpu", 1)["instructions"])

    usual = instructions()
    assert instructions(avx512_f=True) != usual
    assert instructions(l2_cache_size=2**20) != usual
    assert instructions(num_logical_cores=64, cpu_name="another") == usual
    platform_fingerprint._instructions.cache_clear()


def test_onednn_switched_off_counts() -> None:
    """Convolutions are then computed by others."""
    before = fingerprint("cpu", 1)
    torch.backends.mkldnn.set_flags(_enabled=False)
    try:
        assert fingerprint("cpu", 1) != before
    finally:
        torch.backends.mkldnn.set_flags(_enabled=True)
    assert fingerprint("cpu", 1) == before


def test_threads_count_and_the_fingerprint_is_plain() -> None:
    """It goes into digests, and into JSON for people."""
    assert fingerprint("cpu", 1) != fingerprint("cpu", 2)
    assert json.loads(json.dumps(fingerprint("cpu", 1))) == fingerprint("cpu", 1)


def card(
    monkeypatch: pytest.MonkeyPatch, *, name: str, major: int = 9, processors: int = 132, cudnn: int = 91000
) -> Any:
    """Return the fingerprint on a GPU, told by a double of what CUDA says."""
    properties = SimpleNamespace(name=name, major=major, minor=0, multi_processor_count=processors)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: cudnn)
    return fingerprint("cuda", 1)


def test_cards_of_one_kind_share_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """An H100 and an H200 have the same architecture and as many multiprocessors; others, and other libraries, not."""
    usual = card(monkeypatch, name="H100")
    assert card(monkeypatch, name="H200") == usual
    assert card(monkeypatch, name="H100 PCIe", processors=114) != usual
    assert card(monkeypatch, name="B200", major=10) != usual
    assert card(monkeypatch, name="H100", cudnn=91900) != usual
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert card(monkeypatch, name="H100") != usual
