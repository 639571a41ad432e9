"""How long a training takes where nothing like it was measured: counted work, and what such a device does of it."""

from torch import zeros
from torch.utils.flop_counter import FlopCounterMode

from generalist.config import Config
from generalist.evaluation import as_evaluated, evaluated_positions, points
from generalist.models import build
from generalist.tensors import ImageShape
from generalist.training import GroupForecast, Trainer

_SMALL = 5e7  # operations of a forward pass, below which calls cost more than arithmetic
_SPEEDS = {  # operations a second that docs/results.md measured of whole steps: small networks, others
    "cpu": (18e9, 57e9),
    "cuda": (1e12, 70e12),
}
_LIKE = {"cpu": "the CPU of docs/results.md", "cuda": "an H200"}
_TRAINING, _ATTACK = 3, 2  # forward passes that a training pass and a step of an attack cost
_CASCADES = {"quick": 400, "rand": 4_000, "standard": 2_000, "plus": 8_000}  # the same, for each image of digits


def training_seconds(training: Trainer, work: list[GroupForecast]) -> float:
    """Return the seconds for what is left; on a CPU experts go side by side, a GPU is shared."""
    spans, one = dict.fromkeys(training.config.experts, 0.0), _pass_seconds(training)
    for part in work:
        for name in part.experts:
            expert = training.config.experts[name]
            attacks = _ATTACK * expert.objective.gradients_per_image
            times = 1 if expert.perturbation is None else 2
            passes = (_TRAINING * times + attacks) * len(training.dataset.train) * part.epochs * _widths(training)
            spans[name] += passes * one
    return max(spans.values()) if training.config.training.device == "cpu" else sum(spans.values())


def evaluation_seconds(training: Trainer) -> float:
    """Return the seconds for the attacks on all learners."""
    config, options = training.config, training.config.evaluation
    learners = (len(config.experts) + (config.mixing is not None)) * len(points(options))
    passes = _CASCADES[options.attack] + _ATTACK * options.pgd.steps
    images = len(evaluated_positions(training.dataset.test, options)) * learners * len(options.threats)
    return passes * images * _pass_seconds(training)


def basis(training: Trainer) -> str:
    """Return what an estimate rests on."""
    return f"an estimate from counted work, as {_LIKE[training.config.training.device]} does it"


def _pass_seconds(training: Trainer) -> float:
    """Return the seconds of a forward pass of one image."""
    config, operations = training.config, _forward(training.config, training.dataset.shape)
    small, large = _SPEEDS[config.training.device]
    if operations < _SMALL:
        return operations / small
    return operations / (large * (config.training.threads if config.training.device == "cpu" else 1))


def _widths(training: Trainer) -> float:
    """Return how many passes of the whole network all widths together cost, as work goes by the square of channels."""
    return sum(float(width) ** 2 for width in training.config.model.widths) or 1.0


def _forward(config: Config, shape: ImageShape) -> float:
    """Count the operations of a forward pass of one image, without computing anything."""
    network = as_evaluated(build(config.model, shape).to("meta"), config.evaluation).eval()
    with FlopCounterMode(display=False) as counter:
        network(zeros(1, shape.channels, shape.height, shape.width, device="meta"))
    return float(counter.get_total_flops())
