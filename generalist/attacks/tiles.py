"""A network asked in tiles of a fixed number of images.

The number of images in a pass decides which kernels compute it, and with them the last bits of the
logits; what else is in the pass and in which order does not. So each pass has the same number, the
last one filled up with copies, and what an attack finds does not depend on how many images survive.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from generalist.attacks.losses import Loss, Network
from generalist.errors import BadInput
from generalist.tensors import Images, Labels, Logits, PerImage

_TILE = 64  # images per pass on a CPU: more gain little there, and cost more where few are left
_TILE_ACCELERATOR = 256


def tile_size(device: torch.device) -> int:
    """Images per pass on a device."""
    return _TILE if device.type == "cpu" else _TILE_ACCELERATOR


@dataclass(frozen=True)
class Slopes:
    """Logits and losses at some points, and the gradients of the losses with respect to the points."""

    logits: Logits
    losses: PerImage
    gradients: Images


def logits_of(network: Network, images: Images) -> Logits:
    """Logits of one image at least, in float32 or better; no gradients.

    Raises:
        BadInput: the network's output is no matrix of one row per image.
    """
    tile = tile_size(images.device)
    with torch.no_grad():
        return torch.cat([_ask(network, _filled(part, tile))[: len(part)] for part in images.split(tile)])


def slopes_of(network: Network, images: Images, labels: Labels, loss: Loss) -> Slopes:
    """Logits, losses and gradients at one image at least; what is not a number in a gradient is 0.

    Raises:
        BadInput: the network's output is no matrix of one row per image.
    """
    tile = tile_size(images.device)
    with torch.enable_grad():
        parts = [
            _slopes(network, _filled(part, tile), _filled(part_labels, tile), loss, len(part))
            for part, part_labels in zip(images.split(tile), labels.split(tile), strict=True)
        ]
    return Slopes(
        torch.cat([part.logits for part in parts]),
        torch.cat([part.losses for part in parts]),
        torch.cat([part.gradients for part in parts]).nan_to_num_(nan=0.0),
    )


def _slopes(network: Network, tile: Images, labels: Labels, loss: Loss, count: int) -> Slopes:
    """The first `count` of a tile."""
    leaf = tile.detach().requires_grad_()
    logits = _ask(network, leaf)
    losses = loss(logits, labels)
    if losses.requires_grad:
        (gradients,) = torch.autograd.grad(losses.sum(), leaf, allow_unused=True, materialize_grads=True)
    else:  # a black box: nothing leads back to the input
        gradients = torch.zeros_like(leaf)
    return Slopes(logits[:count].detach(), losses[:count].detach(), gradients[:count])


def _filled(part: Tensor, tile: int) -> Tensor:
    """The last row repeated up to a whole tile: copies of a real image, so nothing unusual is computed."""
    missing = tile - len(part)
    return torch.cat([part, part[-1:].expand(missing, *part.shape[1:])]) if missing else part


def _ask(network: Network, tile: Images) -> Logits:
    output = network(tile)
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != len(tile):
        found = f"shape {list(output.shape)}" if isinstance(output, Tensor) else f"type {type(output).__name__}"
        raise BadInput(
            f"the model must map {len(tile)} images to logits [{len(tile)}, classes], but gave an output of {found}"
        )
    return output if output.dtype == torch.float64 else output.float()
