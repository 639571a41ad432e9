"""Expert groups: experts that advance together, epoch by epoch."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from generalist.config import Config, MixingOptions, Steps
from generalist.coupling import Coupling
from generalist.data import Samples, steps_per_epoch
from generalist.data import epoch as batches_of_epoch
from generalist.expert_state import ExpertSpec, ExpertState
from generalist.experts import Expert
from generalist.mixing import weighted_sum
from generalist.tensors import Batch, ImageShape, Weights


@dataclass(frozen=True)
class EpochResult:
    """Means over one epoch of one expert, as trained on; the norm is that of all gradients, a mean over steps."""

    loss: float
    accuracy: float
    gradient_norm: float
    learning_rate: float
    images: int
    seconds: float


class DivergedError(ArithmeticError):
    """An expert's loss, gradient or state is no finite number any more.

    Attributes:
        expert: its place in the group.
        step: of the epoch, from 1.
        loss, gradient_norm: there.
    """

    def __init__(self, expert: int, step: int, loss: float, gradient_norm: float) -> None:
        super().__init__(f"step {step}: loss {loss:g}, gradient norm {gradient_norm:g}")
        self.expert, self.step, self.loss, self.gradient_norm = expert, step, loss, gradient_norm


def checked_metrics(seen: Tensor) -> Tensor:
    """Return the notes of an epoch that was begun, as they were stored.

    Raises:
        ValueError: they are none.
    """
    if seen.dtype != torch.float64 or seen.ndim != 2 or len(seen) != 4:
        raise ValueError(f"notes are {seen.dtype} {list(seen.shape)}")
    return seen


class StepMetrics:
    """What was seen at each step of an epoch: summed loss, correct predictions, gradient norm, images.

    Numbers stay on the device until the epoch ends or is stored, as reading them would wait for it.
    """

    def __init__(self, seen: Tensor | None = None) -> None:
        """Go on from the float64 [4, steps], on the CPU, of an epoch that was begun."""
        self._earlier_steps = torch.zeros(4, 0, dtype=torch.float64) if seen is None else seen
        self._steps: list[Tensor] = []

    def __len__(self) -> int:
        return self._earlier_steps.shape[1] + len(self._steps)

    def add(self, loss: Tensor, correct: Tensor, gradient_norm: Tensor, images: int) -> None:
        """Note a step: three scalars on the device, and a number."""
        count = torch.full((), images, dtype=torch.float64, device=loss.device)
        self._steps.append(torch.stack([loss.double(), correct.double(), gradient_norm.double(), count]))

    def tensor(self) -> Tensor:
        """Return all of it, on the CPU: float64 [4, steps]."""
        if not self._steps:
            return self._earlier_steps
        return torch.cat([self._earlier_steps, torch.stack(self._steps, dim=1).cpu()], dim=1)

    def result(self, *, expert: int, learning_rate: float, seconds: float) -> EpochResult:
        """Return the whole epoch.

        Raises:
            DivergedError: at a step of it, loss or gradient was not finite.
        """
        losses, correct, norms, images = self.tensor()
        finite = losses.isfinite() & norms.isfinite()
        if not finite.all():
            step = int(finite.int().argmin())
            raise DivergedError(expert, step + 1, float(losses[step] / images[step]), float(norms[step]))
        total = float(images.sum())
        return EpochResult(
            loss=float(losses.sum()) / total,
            accuracy=float(correct.sum()) / total,
            gradient_norm=float(norms.mean()),
            learning_rate=learning_rate,
            images=int(total),
            seconds=seconds,
        )


@dataclass(frozen=True)
class PartialEpochState:
    """A group in the middle of an epoch, on the CPU: each expert's state and notes, and the seconds spent."""

    states: tuple[ExpertState, ...]
    notes: tuple[Tensor, ...]
    seconds: float


class ExpertGroup:
    """Experts that advance together: one as a rule, all of them where they are coupled within an epoch."""

    def __init__(
        self, experts: Sequence[Expert], mixing: MixingOptions | None, begun: PartialEpochState | None = None
    ) -> None:
        """Take `mixing` where the experts redistribute between steps: every few ones, or (a burst) after each."""
        self.experts = list(experts)
        self._mixing = mixing
        self._metrics = (
            [StepMetrics() for _ in experts] if begun is None else [StepMetrics(notes) for notes in begun.notes]
        )
        self._coupling: Coupling | None = None
        self._seconds = 0.0 if begun is None else begun.seconds
        self._started_at = time.perf_counter()

    @classmethod
    def from_states(
        cls,
        config: Config,
        specs: Sequence[ExpertSpec],
        states: Sequence[ExpertState],
        shape: ImageShape,
        *,
        on: torch.device,
        coupled: bool,
        begun: PartialEpochState | None = None,
        teachers: Sequence[Weights | None],
    ) -> Self:
        """Bring states to life on a device; a `coupled` group redistributes between steps."""
        experts = [
            Expert(spec, state, config.model, shape, on, teacher)
            for spec, state, teacher in zip(specs, states, teachers, strict=True)
        ]
        group = cls(experts, config.mixing if coupled else None, begun)
        if config.coupled:
            group._coupling = Coupling(experts)
        return group

    @staticmethod
    def at_epoch_start(states: Sequence[ExpertState]) -> PartialEpochState:
        """Return the states between two epochs, as a moment to go on from."""
        return PartialEpochState(tuple(states), tuple(StepMetrics().tensor() for _ in states), 0.0)

    def epoch(
        self, data: Samples, *, unlabelled: Samples | None = None, between: Callable[[], None] | None = None
    ) -> list[EpochResult]:
        """Train every expert for one epoch, or the rest of it, on the same batches, each with its own augmentation.

        Args:
            data: the training images.
            unlabelled: images without labels, for objectives that need them.
            between: called after each step but the last; `snapshot` then gives what a training can go on from.

        Raises:
            DivergedError: loss, gradient or state of an expert was not finite.
        """
        self._started_at = time.perf_counter()
        spec, first = self.experts[0].spec, len(self._metrics[0])
        per_epoch = steps_per_epoch(len(data), spec.batch_size)
        done = self.experts[0].epoch * per_epoch
        apart = [None] * len(self.experts)
        together = zip(*(_batches(expert, data, unlabelled, first) for expert in self.experts), strict=True)
        for index, batches in enumerate(together, start=first):
            attacked = self._coupling.attack(batches, done + index + 1, index) if self._coupling else apart
            for expert, batch, notes, own in zip(self.experts, batches, self._metrics, attacked, strict=True):
                loss, correct = expert.differentiate(batch, done + index + 1, index, own)
                notes.add(loss, correct, _gradient_norm(expert), len(batch))
            for expert in self.experts:  # all have been read
                expert.update(done + index + 1)
            self._redistribute_if_due(done + index + 1, per_epoch)
            if between is not None and index + 1 < per_epoch:
                between()
        return self._finish_epoch(done + per_epoch)

    def stand_still(self, images: int) -> None:
        """Let an epoch of so many images go by in which others train."""
        for expert in self.experts:
            steps = steps_per_epoch(images, expert.spec.batch_size)
            for step in range(expert.epoch * steps + 1, (expert.epoch + 1) * steps + 1):
                expert.stand_still(step)
            expert.epoch += 1

    def snapshot(self) -> PartialEpochState:
        """Return where the group stands, in the middle of an epoch."""
        seconds = self._seconds + time.perf_counter() - self._started_at
        states = tuple(expert.state() for expert in self.experts)
        return PartialEpochState(states, tuple(notes.tensor() for notes in self._metrics), seconds)

    def _finish_epoch(self, step: int) -> list[EpochResult]:
        """Return what the epoch that ends with this step of the training came to; the next may begin."""
        results = []
        for index, (expert, notes) in enumerate(zip(self.experts, self._metrics, strict=True)):
            rate = expert.learning_rate(step)
            seconds = self._seconds + time.perf_counter() - self._started_at
            results.append(notes.result(expert=index, learning_rate=rate, seconds=seconds))
            if not expert.finite():  # by the last step, whose loss was still that of the weights before it
                raise DivergedError(index, len(notes), results[-1].loss, results[-1].gradient_norm)
            expert.epoch += 1
        self._metrics, self._seconds = [StepMetrics() for _ in self.experts], 0.0
        return results

    def _redistribute_if_due(self, step: int, steps_per_epoch: int) -> None:
        mixing = self._mixing
        if mixing is None or step >= self.experts[0].spec.total:
            return
        since = step - mixing.warm_up * steps_per_epoch
        if isinstance(mixing.interval, Steps) and since % mixing.interval.steps:
            return
        if mixing.redistribute == "average":
            weights = weighted_sum([expert.share.weights for expert in self.experts if expert.share is not None])
        else:
            factors = [float(e.spec.mixing.weight[step]) for e in self.experts if e.spec.mixing is not None]
            weights = weighted_sum([expert.contribution for expert in self.experts], factors)
        for expert in self.experts:
            expert.take(weights, reset_momentum=mixing.momentum == "reset")


def _batches(expert: Expert, data: Samples, unlabelled: Samples | None, first: int) -> Iterator[Batch]:
    spec, augment = expert.spec, expert.spec.options.augment
    return batches_of_epoch(
        data,
        seed=spec.seed,
        epoch=expert.epoch,
        batch_size=spec.batch_size,
        augment=augment,
        first=first,
        second="two_views" in expert.objective.needs,
        unlabelled=unlabelled if "unlabelled" in expert.objective.needs else None,
    )


def _gradient_norm(expert: Expert) -> Tensor:
    """Return the norm of all gradients of the step before, together."""
    gradients = [parameter.grad for parameter in expert.learner.model.parameters() if parameter.grad is not None]
    total: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    return total
