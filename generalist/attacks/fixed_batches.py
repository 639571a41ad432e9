"""A network asked in tiles of a fixed number of images.

The number of images in a pass decides which kernels compute it, and with them the last bits of the
logits; what else is in the pass and in which order does not. So each pass has the same number, the
last one filled up with copies, and what an attack finds does not depend on how many images survive.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from generalist.attacks.losses import Loss, Network
from generalist.engine.fallback import first_line_of
from generalist.errors import BadInput
from generalist.tensors import Images, Labels, Logits, PerImage

_TILE = 64  # images per pass on a CPU: more gain little there, and cost more where few are left
_TILE_ACCELERATOR = 256
NO_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "out of memory",
    "could not create a primitive",
)
"""In what torch's allocators and libraries raise as RuntimeError; the last is oneDNN's."""


def tile_size(device: torch.device) -> int:
    """Return images per pass on a device."""
    return _TILE if device.type == "cpu" else _TILE_ACCELERATOR


@dataclass(frozen=True)
class LossGradients:
    """Logits and losses at some points, and the gradients of the losses with respect to the points."""

    logits: Logits
    losses: PerImage
    gradients: Images


def detached(tensor: Tensor) -> Tensor:
    """Return the same numbers without a graph, outside of inference mode: for steps in place and for autograd."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()


def logits_of(network: Network, images: Images) -> Logits:
    """Return the logits of one image at least, in float32 or better; no gradients.

    Raises:
        BadInput: the network fails, or gives no logits; see `checked_answer`.
    """
    tile = tile_size(images.device)
    with torch.no_grad():
        return torch.cat(
            [checked_answer(network, pad_to_batch(part, tile))[: len(part)] for part in images.split(tile)]
        )


def loss_gradients_of(
    network: Network, images: Images, labels: Labels, loss: Loss, targets: Labels | Logits | None = None
) -> LossGradients:
    """Return logits, losses and gradients at one image at least; what is not a number in a gradient is 0.

    The loss is asked for `loss(logits, labels)`, or for `loss(logits, labels, targets)` where there are targets.

    Raises:
        BadInput: the network fails, gives no logits (see `checked_answer`), or has no gradient though it should.
    """

    def work(leaf: Images, *aims: Tensor) -> tuple[Logits, PerImage, Images]:
        logits = checked_answer(network, leaf)
        losses = loss(logits, *aims)
        return logits, losses, _gradient(network, losses, leaf)

    return _by_tile(work, images, *([labels] if targets is None else [labels, targets]))


def nearest_boundary(
    network: Network, images: Images, labels: Labels, length: Callable[[Images], Float64[Tensor, " batch"]]
) -> LossGradients:
    """Return the lead z_c - z_y of the class c whose linearised boundary is nearest, with its gradient.

    One class after the other, keeping the nearest: memory does not grow with the number of classes.

    Args:
        network: from images to logits, differentiable.
        images: one at least.
        labels: int64 [batch].
        length: the dual norm of gradients.
    """

    def work(leaf: Images, labels: Labels) -> tuple[Logits, PerImage, Images]:
        logits = checked_answer(network, leaf)
        leads = logits - logits.gather(1, labels[:, None])
        least = torch.full_like(leads[:, 0], torch.inf, requires_grad=False).detach()
        lead, gradients = leads[:, 0].detach().clone(), torch.zeros_like(leaf)
        for target in range(logits.shape[1]):
            slope = _gradient(network, leads[:, target], leaf, keep=True).nan_to_num_(nan=0.0)
            distance = leads[:, target].detach().abs() / length(slope).to(lead.dtype).clamp_min(1e-12)
            nearer = (distance < least) & (labels != target)
            least = torch.where(nearer, distance, least)
            lead = torch.where(nearer, leads[:, target].detach(), lead)
            gradients = torch.where(nearer.view(-1, 1, 1, 1), slope, gradients)
        return logits, lead, gradients

    return _by_tile(work, images, labels)


def _by_tile(work: Callable[..., tuple[Logits, PerImage, Images]], images: Images, *aims: Tensor) -> LossGradients:
    """Return what is found for images that need gradients, and for their aims, tile by tile."""
    tile, parts = tile_size(images.device), []
    with torch.enable_grad():
        for part, *part_aims in zip(*(given.split(tile) for given in (images, *aims)), strict=True):
            leaf = pad_to_batch(part, tile).detach().requires_grad_()
            result = work(leaf, *(pad_to_batch(aim, tile) for aim in part_aims))
            parts.append([each[: len(part)].detach() for each in result])
    logits, losses, gradients = (torch.cat(each) for each in zip(*parts, strict=True))
    return LossGradients(logits, losses, gradients.nan_to_num_(nan=0.0))


def _gradient(network: Network, losses: PerImage, leaf: Images, *, keep: bool = False) -> Images:
    """Return the gradient of each loss with respect to its image; `keep` the graph for another one."""
    if not losses.requires_grad:  # a black box: nothing leads back to the input
        return torch.zeros_like(leaf)
    with _raise_as_sentence(network, "has no gradient at", leaf):
        (gradient,) = torch.autograd.grad(
            losses.sum(), leaf, retain_graph=keep, allow_unused=True, materialize_grads=True
        )
    return gradient.detach()


def pad_to_batch(part: Tensor, tile: int) -> Tensor:
    """Repeat the last row up to a whole tile: copies of a real image, so nothing unusual is computed."""
    missing = tile - len(part)
    return torch.cat([part, part[-1:].expand(missing, *part.shape[1:])]) if missing else part


def checked_answer(network: Network, images: Images, *, model: object = None) -> Logits:
    """Return what a network says to images, in float32 or float64.

    The network gets a copy: it may write on its input, and autograd allows no writing on a leaf.

    Args:
        network: the function to ask.
        images: a batch.
        model: what to name where the function fails; by default the function.

    Raises:
        BadInput: the function fails, other than for memory, or gives something else than real logits [batch, classes]
            on the device of the images.
    """
    asked = network if model is None else model
    with _raise_as_sentence(asked, "fails on", images):
        output: Any = network(images.clone())
    if not isinstance(output, Tensor):
        description = f"type {type(output).__name__}"
    elif output.ndim != 2 or len(output) != len(images):
        description = f"shape {list(output.shape)}"
    elif not output.is_floating_point():
        description = f"{str(output.dtype).removeprefix('torch.')} numbers"
    elif output.device != images.device:
        description = f"numbers on {output.device}"
    else:
        return output if output.dtype == torch.float64 else output.float()
    raise BadInput(
        f"the model {_name(asked)} must map {len(images)} images to logits [{len(images)}, classes], "
        f"but gave an output of {description}"
    )


def on_behalf(network: Network, model: object) -> Network:
    """Return a function that is named as the model where it fails; see `checked_answer`."""
    return functools.update_wrapper(network, model, assigned=(), updated=())  # type: ignore[arg-type]  # it may be any object


@contextmanager
def _raise_as_sentence(model: object, what: str, images: Images) -> Iterator[None]:
    """Raise a model's error as one sentence; lack of memory stays as it is, for those who can ask for less."""
    try:
        yield
    except (BadInput, MemoryError):
        raise
    except Exception as error:
        if any(sign in str(error) for sign in NO_MEMORY):
            raise
        kind = f"{str(images.dtype).removeprefix('torch.')} images {list(images.shape)} on {images.device}"
        raise BadInput(
            f"the model {_name(model)} {what} {kind}, which it must take in any number ({first_line_of(error)})"
        ) from error


def _name(model: object) -> str:
    """Return the class of a model, or the name of a function."""
    while not isinstance(model, torch.nn.Module) and hasattr(model, "__wrapped__"):
        model = model.__wrapped__
    return getattr(model, "__name__", None) or type(model).__name__
