"""A part of `gpu_short.sh`: attacks by precision, how fast they are and how far their gradients are from the CPU's."""

import dataclasses
from typing import get_args

import torch
from torch import Tensor

from benchmarks import compiler_cache, machine
from benchmarks.counting import iteration
from benchmarks.gpu_bench import Bench
from benchmarks.gpu_fast_ways import LARGE, WAYS, Speed, fastest, pgd_speed, steps, training_pass
from benchmarks.sides import Ours, batch_of
from generalist import engine
from generalist.attacks import autoattack
from generalist.attacks.gradient import input_gradient
from generalist.attacks.losses import cross_entropy
from generalist.attacks.model_adapter import Precision
from generalist.tensors import Batch
from generalist.threats import Threat

OVERRIDES: dict[Precision, str] = {
    "float32": "engine.tf32=false",
    "tf32": "engine.tf32=true",
    "bfloat16": "engine.attack_precision=bfloat16",
}
"""By the arithmetic of an attack."""

UNBREAKABLE = Threat("linf", 1e-6)
"""So small that no image is broken, and every image takes every pass."""

GRADIENTS, FORWARDS = 1900, 7800
"""Passes of an image that survives the standard cascade with ten classes, as counted."""


def throughput_part(bench: Bench) -> None:
    """Measure PGD by the fastest way, PGD of many images uncompiled, gradients, and AutoAttack's members."""
    peaks = bench.peaks()
    precisions = [own for own in get_args(Precision) if own in peaks.products]
    if "tf32" not in precisions:
        bench.part.note = "TF32 needs CUDA"
    size, way = bench.case.config().training.batch_size, fastest(bench)
    uncompiled = "graph" if WAYS[way][1] else "eager"
    with compiler_cache.kept("throughput", out=bench.out, work=bench.work):
        for precision in precisions:
            _pgd(bench, way, size, precision, peaks.products[precision])
    for precision in precisions:
        if not bench.tiny:
            _pgd(bench, uncompiled, LARGE, precision, peaks.products[precision])
        _gradient(bench, precision)
    bench.figure("weights' gradients, float32: relative difference from the CPU's", lambda: weights_difference(bench))
    for precision in precisions:
        _autoattack(bench, precision)


def _pgd(bench: Bench, way: str, count: int, precision: Precision, peak: float) -> None:
    """Measure PGD's images a second in a precision, and the share of the peak that its counted operations take."""
    batch = batch_of(bench.case.shape, count, bench.on)

    def measured() -> dict[str, object]:
        speed: Speed = pgd_speed(bench, way, batch, OVERRIDES[precision])
        achieved = speed.images_a_second * steps(bench) * iteration(bench.case, 1, bytes_each=4).flops
        return dataclasses.asdict(speed) | {"share of the peak": achieved / peak}

    bench.figure(f"PGD-{steps(bench)}, {count} images, {precision}, {way}", measured)


def _gradient(bench: Bench, precision: Precision) -> None:
    name = f"attack's gradient, {precision}: relative difference from the CPU's in float32"
    bench.figure(name, lambda: gradient_difference(bench, precision))


def _autoattack(bench: Bench, precision: Precision) -> None:
    bench.figure(f"AutoAttack, {precision}", lambda: autoattack_speed(bench, precision))


def gradient_difference(bench: Bench, precision: Precision) -> float:
    """Return how far the images' gradients are from those of the CPU in float32, relative to their norm."""
    there, here = _pair(bench, OVERRIDES[precision])
    count = 8 if bench.tiny else 64
    expected = _slopes(there, batch_of(bench.case.shape, count, there.on))
    return _apart(_slopes(here, batch_of(bench.case.shape, count, here.on)), expected)


def weights_difference(bench: Bench) -> float:
    """Return the same of the weights' gradients of a training pass in float32 without TF32."""
    there, here = _pair(bench, "engine.tf32=false")
    count = 8 if bench.tiny else 64
    found = []
    for ours in (here, there):
        with engine.arithmetic(ours.on):
            training_pass(ours, batch_of(bench.case.shape, count, ours.on))
        gradients = [parameter.grad for parameter in ours.natural.learner.model.parameters()]
        found.append(torch.cat([gradient.flatten().cpu() for gradient in gradients if gradient is not None]))
    return _apart(*found)


def _pair(bench: Bench, override: str) -> tuple[Ours, Ours]:
    """Return the CPU's plain side, and this device's with an override, at the same weights."""
    cpu = Ours(bench.case, torch.device("cpu"), "engine.eager=true")
    return cpu, bench.ours("engine.compile=false", override)


def _slopes(ours: Ours, batch: Batch) -> Tensor:
    """Return the images' gradients [batch, channels, height, width], on the CPU."""
    with engine.arithmetic(ours.on, tf32=ours.config.engine.tf32):
        return input_gradient(ours.frozen, batch.images, batch.labels, cross_entropy).cpu()


def _apart(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def autoattack_speed(bench: Bench, precision: Precision) -> dict[str, float]:
    """Return passes a second of APGD and of Square, and a forecast of the cascade from them."""
    images, queries = (32, 10) if bench.tiny else (256, 200)
    model = bench.ours("engine.compile=false").robust.learner.model.eval()
    batch = batch_of(bench.case.shape, images, bench.on)
    with torch.no_grad(), engine.arithmetic(bench.on):
        labels = model(batch.images).argmax(1)

    def passes_a_second(attack: str) -> float:
        passes = 0

        def call() -> None:
            nonlocal passes
            found = autoattack(
                model,
                batch.images,
                labels,
                UNBREAKABLE,
                attacks=[attack],
                square_queries=queries,
                precision=precision,
            ).passes
            passes = int((found.forward if attack == "square" else found.backward).sum())

        spent = machine.seconds(call, bench.on)
        return passes / spent

    gradients, queried = (passes_a_second(attack) for attack in ("apgd-ce", "square"))
    survivor = GRADIENTS / gradients + (FORWARDS - GRADIENTS) / queried
    return {
        "APGD, gradients/s": gradients,
        "Square, forward passes/s": queried,
        "forecast, seconds for 1,000 images that survive": 1000 * survivor,
    }
