"""Parts of `gpu_short.sh` that need no other: the machine, and a training step."""

import os
import platform
import shutil
import statistics
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from benchmarks import machine
from benchmarks.gpu_bench import Bench
from benchmarks.gpu_fast_ways import training_pass
from benchmarks.roofline import Peaks, step_rows
from benchmarks.sides import CASES, Ours, batch_of, naive_side
from benchmarks.training_step import medians, ratio, timed
from generalist import engine
from generalist.platform_fingerprint import has_compiler
from generalist.tensors import Batch, Weights


def machine_part(bench: Bench) -> None:
    """Note versions and the device, and measure its peaks."""
    bench.figure("versions", lambda: {**machine.versions(), **_library_versions()})
    bench.figure("machine", lambda: {**_device(bench.on), "cores": os.cpu_count(), "load": os.getloadavg()[0]})
    bench.figure("compiler", lambda: {"torch.compile has what it needs": has_compiler(bench.on.type), **_compilers()})
    bench.peaks()


def _library_versions() -> dict[str, str]:
    names = ("torchvision", "triton", "numpy", "pydantic", "safetensors")
    found = {"cuDNN": str(torch.backends.cudnn.version()), "platform": platform.platform()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not there"
    return found


def _device(on: torch.device) -> dict[str, Any]:
    if on.type != "cuda":
        return {"card": "none"}
    card = torch.cuda.get_device_properties(on)
    return {
        "card": card.name,
        "compute capability": f"{card.major}.{card.minor}",
        "multiprocessors": card.multi_processor_count,
        "memory, GiB": card.total_memory / 2**30,
    }


def _compilers() -> dict[str, str]:
    return {name: shutil.which(name) or "not there" for name in ("gcc", "clang", "g++", "nvcc")}


def step_part(bench: Bench) -> None:
    """Measure a step of both experts: naive, plain and fast (uncompiled); is it reproducible, and at what cost?"""
    batch = batch_of(bench.case.shape, bench.case.config().training.batch_size, bench.on)
    peaks = bench.peaks()
    bench.figure("step", lambda: _sides(bench, batch, peaks))
    bench.figure("the same steps again give the same bits", lambda: _reproducible(bench, batch))
    if bench.on.type != "cuda":
        bench.part.note = "what cudnn.deterministic costs needs CUDA"
    else:
        ours = bench.ours("engine.compile=false")
        bench.figure("training pass, cudnn.deterministic off / on", lambda: deterministic_cost(ours, batch))


def _sides(bench: Bench, batch: Batch, peaks: Peaks) -> dict[str, Any]:
    """Return milliseconds, ratios and shares of the peak of every side; they take turns."""
    float32 = ("engine.attack_precision=float32", "engine.precision=float32")
    cases = {"digits": bench.case} if bench.tiny else {name: own for name, own in CASES.items() if name != "digits"}
    plain = bench.ours("engine.eager=true", *float32)
    ours = {name: Ours(case, bench.on, "engine.compile=false") for name, case in cases.items()}
    sides = {"naive": naive_side(plain, batch, None), "plain": plain.side(batch, None)}
    sides |= {name: own.side(batch, None) for name, own in ours.items()}
    times = timed(sides, 5 if bench.tiny else 10, bench.on, warm_up=3, whole=True)
    shares = {}
    for name, own in ours.items():
        seconds = {part: spent / 1000 for part, spent in medians(times)[name].items()}
        rows = step_rows(cases[name], own, seconds, len(batch), peaks)
        shares[name] = {row.name: row.ratio for row in rows}
    return {
        "milliseconds": medians(times),
        "naive / ours": {name: ratio(times, "naive", name) for name in ours},
        "plain / ours": {name: ratio(times, "plain", name) for name in ours},
        "share of the peak": shares,
    }


def _reproducible(bench: Bench, batch: Batch) -> bool:
    """Return whether three steps of both experts, done twice from the same start, lead to the same bits.

    In the second step an attack is recorded as a CUDA graph, and in the third it is repeated.
    """
    ends: list[Weights] = []
    for _ in range(2):
        ours = bench.ours("engine.compile=false")
        for expert in (ours.natural, ours.robust):
            for step in range(1, 4):
                expert.step(batch, step, step - 1)
        ends += [ours.natural.weights, ours.robust.weights]
    pairs = zip(ends[:2], ends[2:], strict=True)
    return all(torch.equal(own, other[name]) for one, other in pairs for name, own in one.items())


def deterministic_cost(ours: Ours, batch: Batch) -> float:
    """Return the time of a training pass with all of cuDNN's algorithms, by that with the deterministic ones alone."""
    times: dict[bool, list[float]] = {False: [], True: []}
    with engine.arithmetic(ours.on, tf32=ours.config.engine.tf32):
        before = torch.backends.cudnn.deterministic
        try:
            for turn in range(13):
                for deterministic, own in times.items():
                    torch.backends.cudnn.deterministic = deterministic
                    spent = machine.seconds(lambda: training_pass(ours, batch), ours.on)
                    own += [spent] if turn >= 3 else []  # the first ones warm up
        finally:
            torch.backends.cudnn.deterministic = before
    return statistics.median(times[False]) / statistics.median(times[True])
