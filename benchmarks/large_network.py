"""What a step of each attack costs on ResNet-18, ours beside the plain one, and what that makes for a whole cascade.

A whole cascade on a CPU would take hours, so it is extrapolated: seconds per image and step, measured here with
random weights on CIFAR-shaped noise and an eps too small to break anything, times the steps that images took which
survived on a reference network. That a survivor takes as many steps on both networks is an assumption.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks import plain_gradients, plain_square
from benchmarks.plain_autoattack import plain_autoattack
from benchmarks.plain_gradients import Cost, Counted
from benchmarks.reference_models import Run, data, network
from generalist import attacks, engine
from generalist.attacks.attack_target import AttackTarget
from generalist.attacks.fixed_batches import logits_of, tile_size
from generalist.attacks.model_adapter import Precision, decision_and_views, eval_mode, with_fast_view
from generalist.models.resnet18 import ResNet18
from generalist.randomness import ImageStreams
from generalist.tensors import ImageShape
from generalist.threats import Threat

EPS = 1e-6  # nothing is broken, so every image takes every step
MEMBERS = ("apgd-ce", "apgd-t", "fab-t", "square")


@dataclass(frozen=True)
class Step:
    """One kind of step on both sides: seconds per image, and how many of them a survivor takes."""

    name: str
    plain: float
    ours: float
    plain_count: float
    ours_count: float

    @property
    def ratio(self) -> float:
        return self.plain / self.ours


@dataclass(frozen=True)
class Costs:
    """All steps on one device, and the cascade that they make, in seconds per survivor."""

    name: str
    title: str
    steps: list[Step]

    @property
    def plain(self) -> float:
        return sum(step.plain * step.plain_count for step in self.steps)

    @property
    def ours(self) -> float:
        return sum(step.ours * step.ours_count for step in self.steps)

    @property
    def ratio(self) -> float:
        return self.plain / self.ours


@dataclass(frozen=True)
class Effort:
    """Steps of an image that survives: gradient passes of APGD, steps of FAB, queries of Square."""

    apgd: float
    fab: float
    square: float


def large(images: int, run: Run) -> Iterator[Costs]:
    """Yield costs on the CPU with so many images, then on CUDA if present; in float32, then searching in bfloat16."""
    plain, ours = efforts(run)
    where = f"survivors of {run.network}/{run.norm}:{run.eps}"
    for device, count, steps in [("cpu", images, 2), ("cuda", 1024, 20)]:
        if device == "cuda" and not torch.cuda.is_available():
            continue
        bench = _Bench(torch.device(device), count, steps)
        title = f"ResNet-18 on {device}, {steps} steps of {count} images; the cascade with the steps of {where}"
        precisions: tuple[Precision, ...] = ("float32", "bfloat16")
        for precision in precisions:
            gradient, query = bench.apgd(precision, plain, ours), bench.square(precision, plain, ours)
            found = [gradient, bench.fab(precision, plain, ours, gradient, query), query]
            yield Costs(f"resnet18/{device}/{precision}", f"{title}; ours searches in {precision}", found)


def efforts(run: Run) -> tuple[Effort, Effort]:
    """Return the efforts of the plain cascade and of ours, each attack on the survivors of our cascade."""
    images, labels = data()
    model, threat = network(run.network), Threat(run.norm, run.eps)
    left = attacks.autoattack(model, images, labels, threat).robust
    images, labels = images[left], labels[left]
    plain, ours = {}, {}
    for name in MEMBERS:
        plain[name] = plain_autoattack(model, images, labels, run.norm, run.eps, attacks=[name]).costs[name]
        passes = attacks.autoattack(model, images, labels, threat, attacks=[name]).passes
        ours[name] = Cost(int(passes.forward.sum()), int(passes.backward.sum()))
    return _effort(plain, len(images)), _effort(ours, len(images))


def _effort(costs: dict[str, Cost], n: int) -> Effort:
    gradients = costs["apgd-ce"].backward + costs["apgd-t"].backward
    return Effort(gradients / n, costs["fab-t"].backward / n, costs["square"].forward / n)


def _passes(cost: Cost, gradient: float, query: float) -> float:
    """Return the seconds of some passes."""
    return cost.backward * gradient + (cost.forward - cost.backward) * query


class _Bench:
    """A network and images whose margin is not small, and a clock."""

    def __init__(self, device: torch.device, count: int, steps: int) -> None:
        shape = ImageShape(channels=3, height=32, width=32, classes=10, mean=(0.5,) * 3, std=(0.25,) * 3)
        options = ResNet18(name="resnet18")
        self.device, self.count, self.steps, self.threat = device, count, steps, Threat("linf", EPS)
        self.model = engine.model_with(options, shape, engine.initial_weights(options, shape, 0), on=device)
        images = torch.rand(2 * count, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(device)
        logits = logits_of(self.model, images)
        best = logits.topk(2).values
        likely = (best[:, 0] - best[:, 1]).topk(count).indices
        self.images, self.labels, self.logits = images[likely], logits[likely].argmax(1), logits[likely]

    def apgd(self, precision: Precision, plain: Effort, ours: Effort) -> Step:
        passes = self.count * (self.steps + 1)
        own = self._ours(
            precision,
            lambda who: attacks.apgd(who, self.images, self.labels, self.threat, start=self.images, steps=self.steps),
        )
        other, _ = self._plain(
            lambda net, x, y: plain_gradients.apgd(
                net, x, y, plain_gradients.cross_entropy, "linf", EPS, x, steps=self.steps
            )
        )
        return Step("APGD, gradient pass", other / passes, own / passes, plain.apgd, ours.apgd)

    def fab(self, precision: Precision, plain: Effort, ours: Effort, gradient: Step, query: Step) -> Step:
        """Return a step of FAB: a gradient pass, a forward pass and projections. Runs' other passes are set aside.

        Args:
            precision: of our search.
            plain: steps of a survivor.
            ours: the same.
            gradient: what that pass costs each side.
            query: the same for a forward pass.
        """
        targets, passes = (self.labels + 1) % 10, []

        def call(target: AttackTarget) -> None:
            counted, count = target.counted(self.images)
            attacks.fab(counted, self.images, self.labels, self.threat, targets=targets, steps=self.steps)
            passes.append(Cost(int(count.forward.sum()), int(count.backward.sum())))

        own = self._ours(precision, call)
        other, cost = self._plain(
            lambda net, x, y: plain_gradients.fab(net, x, y, (y + 1) % 10, "linf", EPS, steps=self.steps)
        )
        other *= (gradient.plain + query.plain) / _passes(cost, gradient.plain, query.plain)
        own *= (gradient.ours + query.ours) / _passes(passes[-1], gradient.ours, query.ours)
        return Step("FAB, step", other, own, plain.fab, ours.fab)

    def square(self, precision: Precision, plain: Effort, ours: Effort) -> Step:
        queries, asked = 3 * self.steps, []
        streams = ImageStreams.of(self.images, self.labels, seed=0)

        def call(target: AttackTarget) -> None:
            counted, count = target.counted(self.images)
            attacks.square(counted, self.images, self.labels, self.threat, streams, queries=queries)
            asked.append(int(count.forward.sum()))

        own = self._ours(precision, call)
        other, cost = self._plain(
            lambda net, x, y: plain_square.search(
                net, x, y, "linf", EPS, torch.Generator(x.device).manual_seed(0), queries
            )
        )
        return Step("Square, query", other / cost.forward, own / asked[-1], plain.square, ours.square)

    def _ours(self, precision: Precision, attack: Callable[[AttackTarget], object]) -> float:
        """Return the seconds of our attack, on the network as the cascade hands it over."""
        with eval_mode(self.model):
            decision, _ = decision_and_views(self.model, None)
            target = with_fast_view(self.model, decision, precision, self.images, self.logits)
            return self._seconds(lambda: attack(target))

    def _plain(self, attack: Callable[[Counted, Tensor, Tensor], object]) -> tuple[float, Cost]:
        """Return the seconds of the plain attack, in batches as large as our tiles, and its passes."""
        counted, size = Counted(self.model), tile_size(self.device)

        def call() -> None:
            counted.cost = Cost()
            for x, y in zip(self.images.split(size), self.labels.split(size), strict=True):
                attack(counted, x, y)

        return self._seconds(call), counted.cost

    def _seconds(self, call: Callable[[], object]) -> float:
        """Return CPU time; on CUDA the time that passes, after a call to warm up."""
        if self.device.type == "cpu":
            began = time.process_time()
            call()
            return time.process_time() - began
        call()
        torch.cuda.synchronize()
        began = time.perf_counter()
        call()
        torch.cuda.synchronize()
        return time.perf_counter() - began
