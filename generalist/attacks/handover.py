"""How a model is handed to attacks: in eval mode, by its decision, through its views; and put back as it was."""

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn

from generalist.attacks.losses import Network
from generalist.attacks.tiles import filled, logits_of, tile_size
from generalist.attacks.victim import Victim
from generalist.engine import condensed, recorded
from generalist.errors import BadInput
from generalist.models import Classifier
from generalist.tensors import Images, Logits

Precision = Literal["float32", "bfloat16"]
_SLACK = {"float32": 1e-3, "bfloat16": 0.1}  # of the spread of logits, by which a faster view may differ


@contextmanager
def evaluating(model: nn.Module | Network) -> Iterator[None]:
    """A module in eval mode and without gradients of its parameters; other callables are taken as they are."""
    parts = [part for part in model.modules() if part.training] if isinstance(model, nn.Module) else []
    parameters = [own for own in model.parameters() if own.requires_grad] if isinstance(model, nn.Module) else []
    try:
        for part in parts:
            part.training = False
        for own in parameters:
            own.requires_grad = False
        yield
    finally:
        for part in parts:
            part.training = True
        for own in parameters:
            own.requires_grad = True


def decided(model: nn.Module | Network, views: Mapping[str, Network] | None) -> tuple[Network, dict[str, Network]]:
    """The deployed function, and the further views to take gradients through."""
    if not isinstance(model, Classifier):
        return model, dict(views or {})
    own = model.views()
    return own.pop("decision"), {**own, **(views or {})}


def faster(
    model: nn.Module | Network, decision: Network, precision: Precision, images: Images, logits: Logits
) -> Victim:
    """The decision with a view that differs by rounding alone, where there is one: BatchNorm folded, or bfloat16.

    Args:
        model: in eval mode.
        decision: its deployed function.
        precision: of the view.
        images: one at least.
        logits: of the decision there; a view that disagrees is not taken.

    Raises:
        BadInput: the precision is unknown, or is not float32 though the model is no module.
    """
    if precision not in _SLACK:
        raise BadInput(f"there is no precision '{precision}' of searches; use one of {', '.join(_SLACK)}")
    if not isinstance(model, nn.Module):
        if precision != "float32":
            raise BadInput(f"searches in {precision} need a torch.nn.Module; hand one over, or use float32")
        return Victim(decision)
    few = slice(0, tile_size(images.device))
    network = _rewritten(model, filled(images[few], tile_size(images.device)), precision)
    if network is None:
        return Victim(decision)

    def view(points: Images) -> Logits:
        raw = network(points)
        return model.decision(raw) if isinstance(model, Classifier) else raw

    spread = (logits[few].amax(1) - logits[few].amin(1)).clamp_min(1e-30)
    try:
        difference = (logits_of(view, images[few]) - logits[few]).abs().amax(1) / spread
    except RuntimeError as error:
        if precision == "float32":
            raise
        raise BadInput(f"the model can't be searched in {precision} ({error}): use precision='float32'") from None
    slack = _SLACK[precision]
    return Victim(decision, view, slack) if bool((difference <= slack).all()) else Victim(decision, slack=math.inf)


def _rewritten(model: nn.Module, images: Images, precision: Precision) -> Network | None:
    """The same function faster, where there is a way: without BatchNorm, by matrices, or in bfloat16."""
    if precision == "bfloat16":
        rough = recorded(model, images, dtype=torch.bfloat16)
        if rough is not None:
            return rough
        network = copy.deepcopy(model).bfloat16()
        return lambda points: network(points.bfloat16())
    program = recorded(model, images)
    if program is None:
        return None
    small = condensed(program, images.shape[1:]) if images.device.type == "cpu" else program
    folded = any(isinstance(part, nn.BatchNorm2d) for part in model.modules())
    return small if folded or small is not program else None
