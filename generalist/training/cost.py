"""What a training costs: passes of its network, counted on a step of each group of experts, and seconds here."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from generalist import engine
from generalist.config import Config, EngineOptions
from generalist.data import Dataset, Split, images_on
from generalist.expert_group import ExpertGroup
from generalist.expert_state import ExpertSpec, initial_state, initial_tables
from generalist.mixing import mixing_schedules
from generalist.models import build
from generalist.training.plan import plan

_IMAGES = 24
"""In the batch that is counted on: enough for the parts into which objectives divide one."""
_TIMED = 4
"""Batches that are timed."""


def passes(config: Config, dataset: Dataset) -> float:
    """Return how many passes all epochs of a training come to, attacks and backward passes included.

    One pass is what a forward pass of one image through the network computes in convolutions and matrix products, at
    its full width; a backward pass is about two. Measuring on the validation split is not counted.
    """
    each, count = _forward(config, dataset), min(_IMAGES, len(dataset.train))
    plain = config.model_copy(update={"engine": EngineOptions(eager=True)})

    def step(names: Sequence[str]) -> float:
        train = _trained(plain, dataset, names, images=count, batch_size=count, on=torch.device("cpu"))
        return operations(train) / count / each

    return _all_epochs(config, dataset, step)


def seconds(config: Config, dataset: Dataset) -> float:
    """Return how many seconds all epochs of a training take here, one expert after the other; a few steps are timed."""
    size, on = config.training.batch_size, engine.device(config.training.device)
    images = min(_TIMED * size, len(dataset.train))

    def step(names: Sequence[str]) -> float:
        train = _trained(config, dataset, names, images=images, batch_size=size, on=on)
        train()  # whatever is made once
        since = time.perf_counter()
        train()
        return (time.perf_counter() - since) / images

    with engine.threads(config.training.threads):
        return _all_epochs(config, dataset, step)


def _all_epochs(config: Config, dataset: Dataset, per_image: Callable[[Sequence[str]], float]) -> float:
    """Return the sum over all epochs of what an image costs the experts that train together."""
    found: dict[tuple[str, ...], float] = {}
    total = 0.0
    for round_ in plan(config):
        for group in round_.groups:
            active = tuple(name for name in group if name not in round_.still)
            if active and active not in found:
                found[active] = per_image(active)
            total += found.get(active, 0.0) * len(dataset.train) * (round_.stop - round_.start)
    return total


def _forward(config: Config, dataset: Dataset) -> float:
    """Return the operations of a forward pass of one image."""
    network, shape = build(config.model, dataset.shape).to("meta").eval(), dataset.shape
    images = torch.zeros(1, shape.channels, shape.height, shape.width, device="meta")
    given = () if config.model.condition is None else (torch.zeros(1, device="meta"),)
    return float(operations(lambda: network(images, *given)))


def _trained(
    config: Config, dataset: Dataset, names: Sequence[str], *, images: int, batch_size: int, on: torch.device
) -> Callable[[], object]:
    """Return what trains some experts together for an epoch of so many images, from their initial states on."""
    shape, total = dataset.shape, 4 * max(1, images // batch_size)
    schedules, weights = mixing_schedules(config, total), engine.initial_weights(config.model, shape, config.seed)
    specs = [
        ExpertSpec(config.experts[name], schedules.get(name), config.seed, batch_size, total, config.engine)
        for name in names
    ]
    tables = [
        initial_tables(spec.options, config.model, shape, images=len(dataset.train), seed=config.seed) for spec in specs
    ]
    states = [initial_state(weights, spec, own) for spec, own in zip(specs, tables, strict=True)]
    teachers = [None if spec.options.teacher is None else weights for spec in specs]
    group = ExpertGroup.from_states(config, specs, states, shape, on=on, coupled=False, teachers=teachers)
    train, unlabelled = (
        None if split is None else images_on(_first(split, images), on, "resident")
        for split in (dataset.train, dataset.unlabelled)
    )
    assert train is not None  # which all data have
    return lambda: group.epoch(train, unlabelled=unlabelled)


def _first(split: Split, count: int) -> Split:
    return Split(np.array(split.images[:count]), np.array(split.labels[:count]))


def operations(work: Callable[[], Any]) -> int:
    """Return the floating-point operations of some work, in convolutions and matrix products."""
    counter = _Counter()
    with counter:
        work()
    return counter.total


class _Counter(TorchDispatchMode):
    """Counts floating-point operations; torch's own counter knows modules, and fails on gradients of images."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch annotates nothing here
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in flop_registry:
            self.total += flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=result)
        return result
