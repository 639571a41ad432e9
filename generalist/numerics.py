"""What else than the configuration decides the bits of a result: the code, torch, the device, threads, a compiler."""

import ast
import functools
import hashlib
import importlib.util
import os
import shlex
import shutil
from pathlib import Path

import torch
import torch.distributed as dist

_TRAINING = (
    "tensors",
    "randomness",
    "data/augmentation",
    "data/batches",
    "models",
    "threats",
    "attacks/losses",
    "attacks/gradient",
    "engine",
    "objectives",
    "mixing",
    "experts",
    "units",
)
"""Modules and packages whose code may change what a training step computes."""

_EVALUATION = ("attacks", "evaluation")
"""What may change a verdict, besides."""


def fingerprint(device: str, threads: int, *, evaluation: bool = False) -> dict[str, str | int]:
    """Plain values that go into the key of every stored state, or (`evaluation`) of every measurement."""
    processor = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    modules = (*_TRAINING, *_EVALUATION) if evaluation else _TRAINING
    together = dist.get_world_size() if dist.is_available() and dist.is_initialized() and not evaluation else 1
    told: dict[str, str | int] = {"torch": str(torch.__version__), "device": processor, "threads": threads}
    told["code"] = code_digest(modules)
    if device == "cuda" and not evaluation:  # there `engine.compile: auto` follows it; on a CPU bits don't
        told["compiler"] = has_compiler(device)
    if together > 1:  # alone, keys are what they always were
        told["processes"] = together
    return told


def has_compiler(device: str) -> bool:
    """Whether torch.compile can work here: on a CPU by a C++ compiler, on GPUs by Triton and a C compiler."""
    if device == "cuda":
        return importlib.util.find_spec("triton") is not None and _found("CC", "clang", "gcc")
    return _found("CXX", "g++")


def _found(variable: str, *names: str) -> bool:
    """Whether there is the program that an environment variable names, or without it one of these."""
    named = shlex.split(os.environ.get(variable, ""))[:1]
    return any(shutil.which(name) for name in named or names)


@functools.cache
def code_digest(modules: tuple[str, ...] = _TRAINING) -> str:
    """SHA-256 (hex) of the code that computes; comments, docstrings and layout don't count.

    It takes the place of a version number that somebody would forget to raise.
    """
    package = Path(__file__).parent
    total = hashlib.sha256()
    for name in modules:
        for path in sorted([*package.glob(f"{name}.py"), *package.glob(f"{name}/**/*.py")]):
            total.update(path.relative_to(package).as_posix().encode())
            total.update(_bare(path.read_text(encoding="utf-8")).encode())
    return total.hexdigest()


def _bare(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [line for line in body if not (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))]
            node.body = kept  # type: ignore[attr-defined]  # checked: it has one
    return ast.dump(tree)
