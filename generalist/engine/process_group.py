"""Several processes that train one expert together: started by torch's launcher, the same batch, some rows each.

Every process makes the whole batch by the same generators and takes its own rows; attacks share nothing. What is added
up over processes (gradients, losses, BatchNorm's statistics) is gathered first and added in the order of ranks: then
all processes hold the same bits, and so does the next run, whatever algorithm the network between them would choose.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from generalist.errors import BadInput
from generalist.randomness import PartOfBatch
from generalist.tensors import Batch

_PATIENCE = timedelta(minutes=30)
"""How long a process waits for another: the first may prepare data alone. The launcher ends all if one dies."""

T = TypeVar("T")


class ProcessGroup:
    """The processes of a training, which all call the same methods in the same order; by default this one alone."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    def rows(self, count: int) -> slice:
        """Return this process's rows of a batch of `count` images: neighbours, as many as others' or one more or less.

        Raises:
            BadInput: there are fewer images than processes.
        """
        if count < self.size > 1:
            raise BadInput(
                f"a batch of {count} images can't be shared by {self.size} processes: choose a training.batch_size"
                " that leaves each of them an image, also of an epoch's last batch, or start fewer processes"
            )
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def part(self, batch: Batch, draw: torch.Generator) -> tuple[Batch, torch.Generator]:
        """Return this process's rows of a batch, and their random numbers out of those of the whole batch."""
        if self.size == 1:
            return batch, draw
        rows = self.rows(len(batch))
        return batch.rows(rows), PartOfBatch(draw, rows, len(batch))

    def share(self, part: Batch, whole: Batch) -> Tensor | None:
        """Return what a mean over the part weighs in the mean over the whole batch, a float32 scalar; None is 1."""
        return None if self.size == 1 else torch.full((), len(part) / len(whole), device=part.images.device)

    def sums(self, parameters: Sequence[Tensor], loss: Tensor, correct: Tensor) -> tuple[Tensor, Tensor]:
        """Add up gradients, in place, and both numbers."""
        if self.size == 1:
            return loss, correct
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        # One message for all of them; a count of images is exact in float32 up to 2^24.
        flat = torch.cat(
            [gradient.reshape(-1) for gradient in gradients] + [torch.stack((loss.float(), correct.float()))]
        )
        total = sum_in_rank_order(self.all_gather(flat))
        parts = total[:-2].split([gradient.numel() for gradient in gradients])
        torch._foreach_copy_(
            gradients, [part.view_as(gradient) for part, gradient in zip(parts, gradients, strict=True)]
        )
        return total[-2], total[-1].round().to(correct.dtype)

    def all_gather(self, tensor: Tensor) -> list[Tensor]:
        """Return every process's tensor of this shape, by rank."""
        if self.size == 1:
            return [tensor]
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(parts, tensor)
        return parts

    def broadcast_from_rank0(self, answer: Callable[[], T]) -> T:
        """Return the first process's answer, also where it is a `BadInput`; the others don't ask."""
        if self.size == 1:
            return answer()
        answers: list[tuple[T | None, BadInput | None]] = [(None, None)]
        if self.rank == 0:
            try:
                answers = [(answer(), None)]
            except BadInput as error:
                answers = [(None, error)]
        dist.broadcast_object_list(answers, src=0, device=torch.device("cpu"))
        value, failure = answers[0]
        if failure is not None:
            raise failure
        return value  # type: ignore[return-value]  # without an error it is the answer, which may be None

    def settle(self, device: torch.device) -> None:
        """Select a GPU for this process alone, where several train on GPUs.

        Raises:
            BadInput: there are fewer GPUs than processes.
        """
        if self.size == 1 or device.type != "cuda":
            return
        local_rank, gpu_count = int(os.environ.get("LOCAL_RANK", self.rank)), torch.cuda.device_count()
        if local_rank >= gpu_count:
            raise BadInput(
                f"process {local_rank + 1} on this machine has no GPU of its own: start {gpu_count} processes here"
            )
        torch.cuda.set_device(local_rank)


def group() -> ProcessGroup:
    """Return the processes that this one trains with."""
    joined = dist.is_available() and dist.is_initialized()
    return ProcessGroup(dist.get_rank(), dist.get_world_size()) if joined else ProcessGroup()


def sum_in_rank_order(parts: Sequence[Tensor]) -> Tensor:
    """Return the sum of tensors, added one after the other."""
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total


@contextmanager
def join_launched() -> Iterator[ProcessGroup]:
    """Join the processes that `torchrun` has started; without it, or with one process, nothing happens.

    Raises:
        BadInput: what the block raised, in the first process that meets it; others end with the same exit code 2.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ProcessGroup()
        return
    store, rank, size = next(rendezvous("env://", timeout=_PATIENCE))  # the launcher keeps it until all have ended
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_PATIENCE)
    try:
        yield group()
    except BadInput as error:
        if store.add(f"told: {error}", 1) > 1:
            raise SystemExit(2) from None
        raise
    dist.destroy_process_group()  # not after a failure: it would wait for the others
