"""Every architecture, tiny."""

from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from generalist.config import ModelOptions
from generalist.config.section import part, part_names, plugin
from generalist.models import Architecture, Classifier, build, initialise
from generalist.tensors import ImageShape

RGB = ImageShape(3, 32, 32, 10, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
GREY = ImageShape(1, 8, 8, 10, mean=(0.3,), std=(0.4,))


def tiny(name: str) -> dict[str, Any]:
    """Return the smallest sizes that an architecture takes, from 2 on: a network that loses nothing by its first relu."""
    kind, found = part("models", name, Architecture), {}  # type: ignore[type-abstract]
    for key, field in kind.model_fields.items():
        if isinstance(field.default, int):
            for size in range(2, field.default + 1):
                try:
                    kind.model_validate({"name": name, key: size})
                except ValidationError:
                    continue
                found[key] = size
                break
    return found


TINY = {name: tiny(name) for name in part_names("models")}
"""Options of every architecture there is."""


def options(name: str, **own: Any) -> ModelOptions:
    """Return checked options of an architecture."""
    chosen = plugin("models", {"name": name, **own})
    assert isinstance(chosen, ModelOptions)
    return chosen


def made(name: str, shape: ImageShape = GREY, seed: int = 0, **own: Any) -> Classifier:
    """Return a network with initial weights; tiny unless options say otherwise."""
    model = build(options(name, **(own or TINY[name])), shape)
    initialise(model, torch.Generator().manual_seed(seed))
    return model


def numbers(count: int, shape: ImageShape = GREY, seed: int = 1) -> Tensor:
    """Random images in [0, 1]."""
    return torch.rand(count, shape.channels, shape.height, shape.width, generator=torch.Generator().manual_seed(seed))


def settle(model: nn.Module, seed: int = 2) -> None:
    """Give every BatchNorm2d weights and statistics that are far from the identity."""
    draw = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            with torch.no_grad():
                for tensor in (module.weight, module.bias, module.running_mean):
                    tensor.copy_(torch.randn(tensor.shape, generator=draw))
                module.running_var.copy_(0.5 + torch.rand(module.running_var.shape, generator=draw))
