"""What else than configuration and code decides the bits of a result: torch, processor, threads, libraries."""

import functools
import importlib.util
import os
import platform
import shlex
import shutil

import torch
import torch.distributed as dist

from generalist.config import digest

_ON_CPUS = ("ATEN_", "DNNL_", "MKL_", "ONEDNN_", "OPENBLAS_")
_ON_GPUS = ("CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE")
"""Beginnings of environment variables by which libraries choose other kernels."""
_WITHOUT_EFFECT = ("VERBOSE", "NUM_THREADS", "DYNAMIC")
"""In names of variables that only tell, or count threads, whose number each task sets."""


def fingerprint(device: str, threads: int, *, evaluation: bool = False) -> dict[str, str | int]:
    """Return plain values that go into the key of every stored state, or (`evaluation`) of every measurement.

    Two machines with equal ones give equal bits on CPUs, as far as is known; on GPUs the kind of card stands for what
    its libraries choose.
    """
    together = dist.get_world_size() if dist.is_available() and dist.is_initialized() and not evaluation else 1
    facts: dict[str, str | int] = {"torch": str(torch.__version__), "threads": threads}
    facts |= _card() if device == "cuda" else _processor()
    if device == "cuda" and not evaluation:  # there `engine.compile: auto` follows it; on a CPU bits don't
        facts["compiler"] = has_compiler(device)
    if together > 1:  # alone, keys are what they always were
        facts["processes"] = together
    return facts


def _processor() -> dict[str, str | int]:
    """Return facts of the CPU: its kind, and what libraries are told about it."""
    oneDNN = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled  # noqa: N806  its own name
    return {
        "device": "cpu",
        "instructions": f"{torch.backends.cpu.get_cpu_capability()} {_instructions()[:16]}",
        "mkldnn": bool(oneDNN),
        **_variables(_ON_CPUS),
    }


@functools.cache
def _instructions() -> str:
    """Return the SHA-256 (hex) of the instruction sets and caches by which oneDNN and MKL choose kernels and blocks."""
    known = getattr(torch.cpu, "get_capabilities", None)  # torch 2.9 lacks it
    if known is None:
        return digest([platform.machine(), platform.processor()])
    no_kind = ("num_", "cpu_name")  # counts of cores, and what it is sold as
    return digest({name: value for name, value in known().items() if not name.startswith(no_kind)})


def _card() -> dict[str, str | int]:
    """Return facts of the GPU: cards of one architecture with as many multiprocessors are one kind."""
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return {
        "device": f"cuda sm_{properties.major}{properties.minor}, {properties.multi_processor_count} multiprocessors",
        "cuda": str(torch.version.cuda),
        "cudnn": int(torch.backends.cudnn.version() or 0),
        **_variables(_ON_GPUS),
    }


def _variables(beginnings: tuple[str, ...]) -> dict[str, str]:
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(beginnings) and not any(part in name for part in _WITHOUT_EFFECT)
    }


def has_compiler(device: str) -> bool:
    """Return whether torch.compile can work here: on a CPU by a C++ compiler, on GPUs by Triton and a C compiler."""
    if device == "cuda":
        return importlib.util.find_spec("triton") is not None and _found("CC", "clang", "gcc")
    return _found("CXX", "g++")


def _found(variable: str, *names: str) -> bool:
    """Return whether there is the program that an environment variable names, or without it one of these."""
    named = shlex.split(os.environ.get(variable, ""))[:1]
    return any(shutil.which(name) for name in named or names)
