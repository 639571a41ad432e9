"""An expert at work: network, objective, optimizer, its own average, its share of the global learner; and its steps."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from generalist import engine
from generalist.config import ModelOptions
from generalist.expert_state import (
    AUXILIARY,
    OPENED,
    ExpertSpec,
    ExpertState,
    auxiliary_tables,
    auxiliary_weights,
    build_auxiliary,
)
from generalist.mixing import RunningAverage, ema_decay_with_warmup
from generalist.models import (
    Classifier,
    add_gradients,
    at_width,
    build,
    weights_at_width,
    widths_of,
)
from generalist.objectives import Context, Learner, Loss, Objective
from generalist.perturbations import Perturbation
from generalist.randomness import generator
from generalist.tensors import AttackedImages, Batch, ImageShape, Weights

_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


class AttackedBatch(NamedTuple):
    """A step as the objective sees it, this process's rows of the batch, and what an attack made of these."""

    context: Context
    rows: Batch
    images: AttackedImages


class Expert:
    """A state brought to life on a device."""

    def __init__(
        self,
        spec: ExpertSpec,
        state: ExpertState,
        model_options: ModelOptions,
        shape: ImageShape,
        on: torch.device,
        teacher: Weights | None = None,
    ) -> None:
        self.spec, self.epoch, self._rate_factor = spec, state.epoch, state.rate
        objective = spec.options.objective
        if not isinstance(objective, Objective):
            raise TypeError(f"{type(objective).__name__} is not an objective")
        perturbation = spec.options.perturbation
        if perturbation is not None and not isinstance(perturbation, Perturbation):
            raise TypeError(f"{type(perturbation).__name__} is not a perturbation")
        self.objective, self._perturbation = objective, perturbation
        model = build(model_options, shape).to(on)
        self._memory_format = engine.memory_format(model, eager=spec.engine.eager)
        model.load_state_dict(state.weights)
        for parameter in model.parameters():
            parameter.data = self._in_memory_format(parameter.data)
        self.average = self._running_average(state.average, on)
        self._group = engine.group()
        taught = None if teacher is None else self._on_device(teacher, on)
        narrower = widths_of(model)[1:]
        self._narrower = {share: self._learner(model, share, taught) for share in narrower}
        auxiliary = self._living_auxiliary(model, state.tables, on)
        self.learner = replace(self._learner(model, 1.0, taught), auxiliary=auxiliary)
        self.weights: Weights = model.state_dict()
        self._parameters_by_name = dict(model.named_parameters())
        beside = [] if self.learner.auxiliary is None else list(self.learner.auxiliary.parameters())
        self._parameters = [*self._parameters_by_name.values(), *beside]
        self.optimizer = self._build_optimizer(state.optimizer)
        self.share = self._running_average(state.share, on)
        self.alternative_shares = [
            (schedule, RunningAverage(self._on_device(weights, on)))
            for schedule, weights in zip(spec.alternative_schedules, state.alternative_shares, strict=True)
        ]
        tables = {name: tensor for name, tensor in state.tables.items() if not name.startswith(AUXILIARY)}
        self._tables = {name: tensor.to(on, copy=True) for name, tensor in tables.items()}
        self._offsets: dict[str, Tensor] = {}
        averaging = spec.options.averaging
        self._average_decays = None if averaging is False else ema_decay_with_warmup(averaging, spec.steps)

    def _learner(self, network: Classifier, share: float, taught: Weights | None) -> Learner:
        """Return a network at a width, in training mode, and the fixed ones beside it."""
        model, options = at_width(network, share), self.spec.engine

        def frozen(weights: Weights) -> engine.FrozenNetwork:
            return engine.FrozenNetwork(model, options, weights_at_width(network, weights, share))

        present = engine.FrozenNetwork(model, options)  # frozen networks ask no other process
        needed = self.average is not None and "averaging" in self.objective.needs
        averaged = frozen(self.average.weights) if self.average is not None and needed else None
        teacher = None if taught is None else frozen(taught)
        if engine.compiles(model, options, network.mean.device, self._group):
            engine.compile_attacks(present, batch_size=self.spec.batch_size)
        return Learner(engine.convert_sync_batchnorm(model, self._group).train(), present, averaged, teacher)

    def _living_auxiliary(self, model: Classifier, tables: Weights, on: torch.device) -> nn.Module | None:
        auxiliary = build_auxiliary(self.objective, model)
        if auxiliary is not None:
            auxiliary.load_state_dict(auxiliary_weights(tables))
            auxiliary.to(on).train()
        return auxiliary

    def _build_optimizer(self, tensors: Mapping[str, Tensor]) -> torch.optim.Optimizer:
        settings = self.spec.options.optimizer.model_dump(exclude={"name"}, context={"canonical": True})
        fused = not self.spec.engine.eager
        optimizer = _OPTIMIZERS[self.spec.options.optimizer.name](self._parameters, fused=fused, **settings)
        saved: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            index, _, name = key.partition("/")
            saved.setdefault(int(index), {})[name] = self._in_memory_format(tensor.clone())
        state = optimizer.state_dict()
        optimizer.load_state_dict({"state": saved, "param_groups": state["param_groups"]})
        return optimizer

    def step(self, batch: Batch, step: int, batch_index: int) -> tuple[Tensor, Tensor]:
        """Take one optimizer step: `differentiate`, then `update`."""
        seen = self.differentiate(batch, step, batch_index)
        self.update(step)
        return seen

    def attack(self, batch: Batch, step: int, batch_index: int) -> AttackedBatch:
        """Attack this process's rows of the batch; the arguments are those of `differentiate`."""
        return self._attacked(self.learner, batch, step, batch_index)

    def differentiate(
        self, batch: Batch, step: int, batch_index: int, attacked: AttackedBatch | None = None
    ) -> tuple[Tensor, Tensor]:
        """Take the gradients of the loss, where a perturbation leads if there is one; of all widths, those of the sum.

        Args:
            batch: of all processes that share it.
            step: counts from 1 over the training.
            batch_index: counts from 0 in the epoch.
            attacked: what `attack` gave; without it, the batch is attacked first.

        Returns:
            The summed loss and the number of correct predictions at the whole width, both without waiting for the
            device.
        """
        on, progress = batch.images.device, self.spec.progress(step)
        if attacked is None:
            attacked = self.attack(batch, step, batch_index)
        narrower = {
            share: self._attacked(learner, batch, step, batch_index) for share, learner in self._narrower.items()
        }
        with engine.arithmetic(on, tf32=self.spec.engine.tf32):

            def gradients() -> tuple[Tensor, Tensor]:
                self.optimizer.zero_grad()
                loss = self._backward(self.learner, attacked, batch)
                for share, own in narrower.items():
                    self._backward(self._narrower[share], own, batch)
                    add_gradients(self.learner.model, self._narrower[share].model, share)
                correct = (loss.logits.detach().argmax(dim=1) == attacked.rows.labels).sum()
                return self._group.sums(self._parameters, loss.value.detach() * len(attacked.rows), correct)

            if self._perturbation is not None and self._perturbation.strength(progress):
                with _restoring_buffers(self.learner.model, self.learner.auxiliary):
                    gradients()
                self._offsets = self._perturbation.ascent(self._parameters_by_name, progress)
                self._add_offsets(1.0)
            return gradients()

    def _attacked(self, learner: Learner, batch: Batch, step: int, batch_index: int) -> AttackedBatch:
        """Attack the batch at one width; all draw the same random numbers, so they see the same conditions."""
        on = batch.images.device
        draw = generator(self.spec.seed, "attack", self.epoch, batch_index, device=on)
        rows, draw = self._group.part(batch, draw)
        context = Context(draw, self.epoch, self._tables, self._group, self.spec.progress(step))
        with engine.arithmetic(on, tf32=self.spec.engine.tf32), self._autocast(on):
            condition = self.objective.conditions(context, learner, rows)
            rows = rows if condition is None else replace(rows, condition=condition)
            return AttackedBatch(context, rows, self.objective.attacked(context, learner, rows))

    def _backward(self, learner: Learner, attacked: AttackedBatch, batch: Batch) -> Loss:
        """Add the gradients of the loss at one width to those that are there."""
        with self._autocast(batch.images.device):
            loss = self.objective.loss(attacked.context, learner, attacked.rows, attacked.images)
        loss.value.backward(self._group.share(attacked.rows, batch))
        return loss

    def update(self, step: int) -> None:
        """Take the optimizer's step by the gradients that were taken, and the perturbation back."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        self.optimizer.step()
        self._add_offsets(-1.0)
        self._offsets = {}
        self._update_averages(step)

    def end_epoch(self, step: int, *, accepted: bool) -> None:
        """Let a gated average follow the weights after an epoch: it begins at the first ones that are accepted.

        Until then it is what the weights are.

        Args:
            step: the last of the epoch.
            accepted: whether these weights may enter it.
        """
        averaging, opened = self.spec.options.averaging, self._tables[OPENED]
        assert averaging is not False  # a gate is refused without an average
        assert self.average is not None
        if accepted or not opened:
            done = (step - self.spec.begin) / self.spec.steps
            keep = averaging.at(done) if opened else 0.0
            self.average.update(self.weights, keep, 1.0 - keep)
        if accepted:
            opened.fill_(1)

    def stand_still(self, step: int) -> None:
        """Let a step go by in which others train: its weights stay, and its share of the global learner follows."""
        self._update_shares(step)

    @torch.no_grad()
    def _add_offsets(self, times: float) -> None:
        for name, tensor in self._offsets.items():
            self._parameters_by_name[name].add_(tensor, alpha=times)

    def _autocast(self, on: torch.device) -> torch.autocast:
        """Return the arithmetic of the whole step."""
        return torch.autocast(on.type, torch.bfloat16, enabled=self.spec.engine.precision == "bfloat16")

    def _running_average(self, weights: Weights | None, on: torch.device) -> RunningAverage | None:
        return None if weights is None else RunningAverage(self._on_device(weights, on))

    def _on_device(self, weights: Weights, on: torch.device) -> Weights:
        return {name: self._in_memory_format(tensor.to(on)) for name, tensor in weights.items()}

    def _in_memory_format(self, tensor: Tensor) -> Tensor:
        """Lay it out as weights lie in memory: averages and momenta then move in one pass, to the same bits."""
        return tensor.to(memory_format=self._memory_format) if tensor.ndim == 4 else tensor

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 1."""
        factor = self.spec.options.schedule.at(self.spec.progress(step))
        return float(self.spec.options.optimizer.lr) * factor * self._rate_factor

    def _update_averages(self, step: int) -> None:
        """Move the expert's own average, then its share of the global learner."""
        gated = self.spec.options.gate is not None
        if self.average is not None and self._average_decays is not None and not gated:
            keep = float(self._average_decays[step - self.spec.begin])
            self.average.update(self.weights, keep, 1.0 - keep)
        self._update_shares(step)

    def _update_shares(self, step: int) -> None:
        if self.share is not None and self.spec.mixing is not None:
            for schedule, share in [(self.spec.mixing, self.share), *self.alternative_shares]:
                keep, weight = float(schedule.decay[step]), float(schedule.weight[step])
                share.update(self.contribution, keep, (1.0 - keep) * weight)

    @property
    def contribution(self) -> Weights:
        """What is mixed: the expert's own average where it keeps one, else its weights."""
        return self.weights if self.average is None else self.average.weights

    def take(self, weights: Weights, *, reset_momentum: bool) -> None:
        """Go on from the given weights."""
        with torch.no_grad():
            for name, tensor in self.weights.items():
                tensor.copy_(weights[name])
        if reset_momentum:
            self.optimizer.state.clear()

    def finite(self) -> bool:
        """Return whether every number of it is finite, those of its optimizer, averages and shares among them."""
        averages = [
            average
            for average in (self.average, self.share, *(share for _, share in self.alternative_shares))
            if average
        ]
        kept = [value for entry in self.optimizer.state.values() for value in entry.values()]
        tensors = [
            *self.weights.values(),
            *self._all_tables.values(),
            *kept,
            *(tensor for average in averages for tensor in average.weights.values()),
        ]
        return all(bool(tensor.isfinite().all()) for tensor in tensors if isinstance(tensor, Tensor))

    def state(self) -> ExpertState:
        """Return a copy of everything, on the CPU."""
        optimizer = {
            f"{index}/{name}": value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for index, entry in self.optimizer.state_dict()["state"].items()
            for name, value in entry.items()
            if isinstance(value, Tensor)
        }
        return ExpertState(
            epoch=self.epoch,
            weights=_cpu_copies(self.weights),
            optimizer=optimizer,
            average=None if self.average is None else _cpu_copies(self.average.weights),
            share=None if self.share is None else _cpu_copies(self.share.weights),
            rate=self._rate_factor,
            alternative_shares=tuple(_cpu_copies(share.weights) for _, share in self.alternative_shares),
            tables=_cpu_copies(self._all_tables),
        )

    @property
    def _all_tables(self) -> Weights:
        beside = self.learner.auxiliary
        return self._tables if beside is None else self._tables | auxiliary_tables(beside)


@contextmanager
def _restoring_buffers(*modules: nn.Module | None) -> Iterator[None]:
    """Leave the buffers as they are in passes inside, such as BatchNorm's running statistics."""
    buffers = [buffer for module in modules if module is not None for buffer in module.buffers()]
    kept = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, before in zip(buffers, kept, strict=True):
            buffer.copy_(before)


def _cpu_copies(weights: Weights) -> Weights:
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in weights.items()
    }
