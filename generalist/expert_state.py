"""What an expert is between steps: its specification, and its state, from the first one on."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from generalist.config import EngineOptions, ExpertOptions, ModelOptions
from generalist.mixing import MixingSchedule, RunningAverage
from generalist.models import Classifier, initialise, outline, unfilled
from generalist.objectives import Objective
from generalist.randomness import generator
from generalist.tensors import ImageShape, Weights

AUXILIARY = "auxiliary."
"""Before the names of an auxiliary network's weights, among the tables of an objective."""
OPENED = "gate.opened"
"""Among the tables, too: whether the gate of the average has ever let it move."""


@dataclass(frozen=True)
class ExpertState:
    """Everything that an expert's future depends on.

    Attributes:
        epoch: epochs done.
        weights: parameters and buffers.
        optimizer: the optimizer's tensors by `index/name`, such as `0/momentum_buffer`.
        average: the expert's own weight average, where it keeps one.
        share: its share of the global learner, where there is one.
        alternative_shares: what its share would be by the `ExpertSpec.alternative_schedules`.
        rate: factor on its learning rate, below 1 after it diverged and went back (`training.divergence`).
        tables: the objective's own memory, and the weights of what it trains beside the network.
    """

    epoch: int
    weights: Weights
    optimizer: dict[str, Tensor]
    average: Weights | None
    share: Weights | None
    rate: float = 1.0
    alternative_shares: tuple[Weights, ...] = ()
    tables: Weights = field(default_factory=dict)

    @property
    def learner(self) -> Weights:
        """What this expert contributes and deploys: its average where it keeps one, else its weights."""
        return self.weights if self.average is None else self.average


@dataclass(frozen=True)
class ExpertSpec:
    """What an expert's training needs to know, all of it plain values.

    Attributes:
        options: objective, augmentation, optimizer, schedule, averaging.
        mixing: its mixing weight and the average's decay by step; None where nothing is mixed.
        seed, batch_size, total: of the training; `total` counts optimizer steps.
        engine: how steps are computed.
        alternative_schedules: of other trainings that share this trajectory up to their first redistribution; shares
            by these are accumulated beside the expert's own, so that none of them has to train for it again.
        begin, end: the steps before its first one, and before it stands still; by default all are its own.
    """

    options: ExpertOptions
    mixing: MixingSchedule | None
    seed: int
    batch_size: int
    total: int
    engine: EngineOptions
    alternative_schedules: tuple[MixingSchedule, ...] = ()
    begin: int = 0
    end: int | None = None

    @property
    def steps(self) -> int:
        """How many steps it trains."""
        return (self.total if self.end is None else self.end) - self.begin

    def progress(self, step: int) -> float:
        """Return how far its own training is, in [0, 1), before a step that is counted from 1 over all epochs."""
        return (step - 1 - self.begin) / self.steps


def initial_state(weights: Weights, spec: ExpertSpec, tables: Weights | None = None) -> ExpertState:
    """Return the state before the first step; the shares of all experts sum to the common initial weights."""
    share = None if spec.mixing is None else _first_share(weights, spec.mixing)
    alternative_shares = tuple(_first_share(weights, schedule) for schedule in spec.alternative_schedules)
    average = None if spec.options.averaging is False else {name: tensor.clone() for name, tensor in weights.items()}
    return ExpertState(0, weights, {}, average, share, alternative_shares=alternative_shares, tables=tables or {})


def initial_tables(
    options: ExpertOptions, model: ModelOptions, shape: ImageShape, *, images: int, seed: int
) -> Weights:
    """Return an expert's tables before the first step, of so many training images.

    Raises:
        TypeError: the configuration names something else than an objective.
    """
    objective = options.objective
    if not isinstance(objective, Objective):
        raise TypeError(f"{type(objective).__name__} is not an objective")
    tables, auxiliary = objective.tables(shape.classes, images), build_auxiliary(objective, outline(model, shape))
    if options.gate is not None:
        tables = tables | {OPENED: torch.zeros(1)}
    if auxiliary is None:
        return tables
    initialise(auxiliary, generator(seed, "auxiliary"))
    return tables | auxiliary_tables(auxiliary)


def auxiliary_weights(tables: Weights) -> Weights:
    """Return the weights of what is trained beside the network, which are among its objective's tables."""
    return {name.removeprefix(AUXILIARY): tensor for name, tensor in tables.items() if name.startswith(AUXILIARY)}


def build_auxiliary(objective: Objective, network: Classifier) -> nn.Module | None:
    """Return what an objective trains beside a network, on the CPU, without weights yet."""
    made = unfilled(lambda: objective.auxiliary(network))
    return None if made is None else made.to_empty(device="cpu")


def auxiliary_tables(auxiliary: nn.Module) -> Weights:
    """Return the weights of what is trained beside the network, as tables."""
    return {f"{AUXILIARY}{name}": tensor for name, tensor in auxiliary.state_dict().items()}


def started(state: ExpertState, weights: Weights) -> ExpertState:
    """Return the expert's state where it begins to train, at another expert's weights."""
    average = None if state.average is None else {name: tensor.clone() for name, tensor in weights.items()}
    return replace(state, weights=weights, average=average)


def redistribute_to(state: ExpertState, weights: Weights, *, reset_momentum: bool) -> ExpertState:
    """Return the expert's state where it goes on from the given weights; its average and its share stay as they are.

    What it is given depends on decay and mixing weights, so here the ways of alternatives part from its own.
    """
    return replace(state, weights=weights, optimizer={} if reset_momentum else state.optimizer, alternative_shares=())


def _first_share(weights: Weights, schedule: MixingSchedule) -> Weights:
    return RunningAverage(weights, float(schedule.weight[0])).weights
