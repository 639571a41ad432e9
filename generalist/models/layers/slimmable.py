"""Slimmable networks (Yu et al. 2019): a narrower width has the first channels of each layer, and its own BatchNorms.

So a network at a width is the narrow network of that many channels; its weights are slices of the wide one's, from the
first row and column on, as in the published code of OATS (`slimmable_ops`), FiLM's among them.
"""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from generalist.models.contract import Classifier
from generalist.tensors import Weights


class NarrowNorms(nn.Module):
    """The BatchNorms of the narrower widths of a network ("switchable"); its own are those of width 1.

    Attributes:
        shares: the widths, in rising order, without 1.
    """

    def __init__(self, networks: Mapping[float, Classifier]) -> None:
        """Take a network of each width, on the meta device: its form, and its BatchNorms."""
        super().__init__()
        self.shares = tuple(networks)
        self._forms = tuple(networks.values())  # in a tuple, so that they are no part of its state
        self.norms = nn.ModuleList(
            nn.ModuleDict({_key(path): part for path, part in form.named_modules() if isinstance(part, nn.BatchNorm2d)})
            for form in self._forms
        )

    def form(self, share: float) -> Classifier:
        """Return a network of that width, whose weights mean nothing."""
        return copy.deepcopy(self._forms[self.shares.index(share)])

    def names(self, share: float) -> dict[str, str]:
        """Return the names of the wide network's weights by those of the narrow one's that lie in them."""
        place = self.shares.index(share)
        switched, names = dict(self.norms[place].named_children()), {}
        for name in self._forms[place].state_dict():
            path, _, leaf = name.rpartition(".")
            own = f"narrow_norms.norms.{place}.{_key(path)}.{leaf}"
            names[name] = own if _key(path) in switched else name
        return names


def _key(path: str) -> str:
    return path.replace(".", "/")  # names of modules have no dots


def widths_of(network: Classifier) -> tuple[float, ...]:
    """Return the widths that a network was built for, in falling order; 1 alone for one that isn't slimmable."""
    norms = network.narrow_norms
    return (1.0, *reversed(norms.shares)) if isinstance(norms, NarrowNorms) else (1.0,)


def at_width(network: Classifier, share: float) -> Classifier:
    """Return a network at one of its `widths_of`: the narrow network, all of whose weights lie in the wide one's.

    Where a weight is the whole of the wide one's, such as those of its BatchNorms, it is the same parameter; of all
    others `add_gradients` takes the gradients to the wide network.
    """
    norms = network.narrow_norms
    if share == 1 or not isinstance(norms, NarrowNorms):
        return network
    narrow, parameters = norms.form(share), dict(network.named_parameters())
    tensors = weights_at_width(network, network.state_dict(), share)
    for name, wide in norms.names(share).items():
        if wide in parameters and parameters[wide].shape == tensors[name].shape:
            tensors[name] = parameters[wide]
    narrow.load_state_dict(tensors, assign=True)
    return narrow.to(network.mean.device, network.mean.dtype).train(network.training)


def weights_at_width(network: Classifier, weights: Weights, share: float) -> Weights:
    """Return weights of a network as those of the narrow one: views, by its names."""
    norms = network.narrow_norms
    if share == 1 or not isinstance(norms, NarrowNorms):
        return weights
    shapes = {name: tensor.shape for name, tensor in norms.form(share).state_dict().items()}
    return {name: _first(weights[wide], shapes[name]) for name, wide in norms.names(share).items()}


@torch.no_grad()
def add_gradients(network: Classifier, narrow: Classifier, share: float) -> None:
    """Add the gradients of a network at a width to those of the network, and forget them."""
    norms = network.narrow_norms
    if share == 1 or not isinstance(norms, NarrowNorms):
        return
    parameters, names = dict(network.named_parameters()), norms.names(share)
    for name, parameter in narrow.named_parameters():
        wide = parameters[names[name]]
        if wide is parameter or parameter.grad is None:
            continue
        if wide.grad is None:
            wide.grad = torch.zeros_like(wide)
        _first(wide.grad, parameter.shape).add_(parameter.grad)
        parameter.grad = None


def _first(tensor: Tensor, shape: torch.Size) -> Tensor:
    """Return the first rows, columns and so on of a tensor, so many of each."""
    return tensor[tuple(map(slice, shape))]
