"""What is timed of a training step: the naive loop, ours on its plain paths, and ours, each whole and in parts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.machine import seconds
from benchmarks.naive_training import NaiveTraining
from generalist import engine
from generalist.attacks import attack_from
from generalist.attacks.gradient import input_gradient
from generalist.attacks.losses import cross_entropy
from generalist.config import Config, ExpertOptions, load
from generalist.expert_state import ExpertSpec, initial_state
from generalist.experts import Expert
from generalist.mixing import mixing_schedules
from generalist.models import build
from generalist.tensors import Batch, ImageShape
from generalist.threats import threat_from

STEPS = 1000  # of the training that the step is one of
GREY = ImageShape(1, 8, 8, 10, mean=(0.3,), std=(0.4,))
RGB = ImageShape(3, 32, 32, 10, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
PARTS = ("attack", "training pass", "natural", "averages", "progress bar")
Step = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """A configuration to time.

    Attributes:
        preset: the configuration.
        shape: of its images.
        batch: images in a step on a CPU.
        overrides: what makes it this case.
    """

    preset: str
    shape: ImageShape
    batch: int
    overrides: tuple[str, ...] = ()

    def config(self, *more: str) -> Config:
        """Return the configuration, with more overrides."""
        return load(preset=self.preset, overrides=[*self.overrides, *more])


CASES = {
    "digits": Case("digits", GREY, 64),
    "resnet18_float32": Case("cifar10-resnet18", RGB, 32),
    "resnet18_bf16_attack": Case("cifar10-resnet18", RGB, 32, ("engine.attack_precision=bfloat16",)),
    "resnet18_bf16": Case("cifar10-resnet18", RGB, 32, ("engine.precision=bfloat16",)),
}


@dataclass(frozen=True)
class Side:
    """One way to compute a step.

    Attributes:
        whole: the step.
        parts: calls by name, out of `PARTS`.
        attacks: how many times the call `attack` makes the attack of a step.
        contained: parts that other parts contain.
        alike: names of work that other sides may have, too, by part.
    """

    whole: Step
    parts: Mapping[str, Step]
    attacks: float
    contained: tuple[str, ...] = ()
    alike: Mapping[str, str] = field(default_factory=dict)

    def timed(self, on: torch.device, *, whole: bool, known: dict[str, float] | None = None) -> dict[str, float]:
        """Return the milliseconds of each part, and of the `step`, which is the sum of its parts unless `whole`.

        Args:
            on: the device.
            whole: time the step, too.
            known: work that was timed already, by name; more is put there.
        """
        known, spent = {} if known is None else known, {}
        for name, call in self.parts.items():
            work = self.alike.get(name)
            spent[name] = known[work] if work in known else 1000 * seconds(call, on)
            if work is not None:
                known[work] = spent[name]
        spent["attack"] *= self.attacks
        spent.setdefault("training pass", spent["natural"])  # the same work
        parts = sum(own for name, own in spent.items() if name not in self.contained)
        return spent | {"step": 1000 * seconds(self.whole, on) if whole else parts}


def batch_of(shape: ImageShape, size: int, on: torch.device) -> Batch:
    """Return random images and labels."""
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(size, shape.channels, shape.height, shape.width, generator=draw).to(on)
    labels = torch.randint(0, shape.classes, (size,), generator=draw).to(on)
    return Batch(images, labels, torch.arange(size, device=on))


class Ours:
    """Both experts of a configuration."""

    def __init__(self, case: Case, on: torch.device, *overrides: str) -> None:
        self.config, self.shape, self.on = case.config(*overrides), case.shape, on
        self.weights = engine.initial_weights(self.config.model, case.shape, self.config.seed)
        self.natural, self.robust = (self._expert(name, self.config.experts[name]) for name in ("natural", "robust"))
        self.objective: Any = self.config.experts["robust"].objective

    def _expert(self, name: str, options: ExpertOptions) -> Expert:
        config, by_expert = self.config, mixing_schedules(self.config, STEPS)
        spec = ExpertSpec(options, by_expert.get(name), config.seed, config.training.batch_size, STEPS, config.engine)
        state = initial_state({key: tensor.clone() for key, tensor in self.weights.items()}, spec)
        return Expert(spec, state, config.model, self.shape, self.on)

    @property
    def frozen(self) -> Any:
        """The network that attacks see."""
        return self.robust.learner.frozen

    def slope(self, batch: Batch) -> torch.Tensor:
        """Return the attack's gradient, without TF32."""
        with engine.arithmetic(self.on):
            return input_gradient(self.frozen, batch.images, batch.labels, cross_entropy)

    def attacked(self, batch: Batch, iterations: int) -> object:
        """Attack a batch as a step does, in so many iterations."""
        threat = threat_from(self.objective.threat)
        attack = attack_from(self.objective.attack.model_copy(update={"steps": iterations}), threat)
        draw = torch.Generator(self.on).manual_seed(0)
        with engine.arithmetic(self.on, tf32=self.config.engine.tf32):
            return attack(self.frozen, batch.images, batch.labels, generator=draw)

    def side(self, batch: Batch, iterations: int | None) -> Side:
        """Return what is timed; where the attack is cut to some iterations, its training pass is taken as natural."""

        def averages() -> None:
            for expert in (self.natural, self.robust):
                assert expert.share is not None
                expert.share.update(expert.contribution, 0.999, 0.0005)

        def whole() -> None:
            self.natural.step(batch, 500, 3)
            self.robust.step(batch, 500, 3)

        steps = self.objective.attack.steps
        parts: dict[str, Step] = {
            "attack": lambda: self.attacked(batch, iterations or steps),
            "natural": lambda: self.natural.step(batch, 500, 3),
            "averages": averages,
        }
        if iterations is None:
            natural = self.config.experts["natural"].objective
            options = self.config.experts["robust"].model_copy(update={"objective": natural})
            alone = self._expert("robust", options)
            parts["training pass"] = lambda: alone.step(batch, 500, 3)
        own = self.config.engine
        bf16 = "bfloat16" in (own.precision, own.attack_precision)
        way = f"eager {own.eager}, compile {own.compile}"
        alike = {"attack": f"attack, bf16 {bf16}, {way}", "natural": f"{own.precision}, {way}"}
        return Side(whole, parts, steps / (iterations or steps), contained=("averages",), alike=alike)


def naive_side(ours: Ours, batch: Batch, iterations: int | None) -> Side:
    """Return the naive loop with a configuration's settings, and torch's own; its attack is cut like `Ours.side`'s."""
    attack, eps = ours.objective.attack, float(ours.objective.threat.eps)
    network = build(ours.config.model, ours.shape).to(ours.on)
    network.load_state_dict(ours.weights)
    optimizer = ours.config.experts["robust"].optimizer
    loop = NaiveTraining(
        network,
        eps=eps,
        step_size=2.5 * eps / attack.steps if attack.step_size is None else float(attack.step_size),
        steps=attack.steps,
        optimizer={"lr": float(optimizer.lr), "momentum": 0.9, "weight_decay": 5e-4},
    )
    images, labels = batch.images, batch.labels
    parts: dict[str, Step] = {
        "attack": lambda: loop.attacked(images, labels, iterations),
        "natural": lambda: loop.train(0, images, labels),
        "averages": loop.average,
        "progress bar": lambda: loop.shown(images, labels),
    }
    if iterations is None:
        parts["training pass"] = lambda: loop.train(1, images, labels)
    return Side(lambda: loop.step(images, labels), parts, attack.steps / (iterations or attack.steps))


def difference(ours: Ours, exact: Ours, batch: Batch, here: Batch | None = None) -> tuple[float, float]:
    """Return how far the attack's gradients are from the plain ones: relative, and the share of equal signs.

    Args:
        ours: whose gradients.
        exact: who has the plain ones.
        batch: where `exact` is.
        here: the same where `ours` is.
    """
    pairs = ((ours, here or batch), (exact, batch))
    found, true = (own.slope(at).cpu() for own, at in pairs)
    return float((found - true).norm() / true.norm()), float((found.sign() == true.sign()).float().mean())
