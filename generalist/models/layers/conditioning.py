"""Layers that depend on a condition: encodings of lambda, FiLM, dual BatchNorm (Wang et al., NeurIPS 2020).

Formulas are those of the published code of once-for-all adversarial training (`OAT.py`, `FiLM.py`, `DualBN.py`).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generalist.config import ConditionOptions
from generalist.models.contract import Encoded, Encoding
from generalist.tensors import PerImage

_SLOPE = 0.01
"""Of LeakyReLU (`FiLM.py` leaves torch's default)."""


def encoding_of(options: ConditionOptions | None) -> Encoding | None:
    """Return what encodes the condition that the configuration names, if it names one."""
    return None if options is None else _Codes(options)


class _Codes(Encoding):
    """A row of a matrix for each choice, and a point on the line between two rows elsewhere; or the number itself.

    The published code has a row for each choice alone. Rows are state, so that weights mean the same on every machine.
    """

    knots: Tensor
    rows: Tensor

    def __init__(self, options: ConditionOptions) -> None:
        super().__init__()
        self.kind, self.choices = options.encoding, tuple(map(float, options.choices))
        self.size = 1 if self.kind == "raw" else options.size
        self.register_buffer("knots", torch.tensor(self.choices, device="cpu"), persistent=False)
        if self.kind != "raw":
            self.register_buffer("rows", torch.empty(len(self.choices), self.size))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        if self.kind != "raw":
            self.rows.copy_(_matrix(self.kind, self.size, generator)[: len(self.choices)])

    def forward(self, condition: PerImage) -> Encoded:
        natural = condition == 0
        column = condition.to(self.knots.dtype)[:, None]
        rows = (natural.nonzero()[:, 0], (~natural).nonzero()[:, 0]) if self.training else None
        if self.kind == "raw":
            return Encoded(column, natural, rows)
        # How far lambda is from each choice to the next, in [0, 1]; of two neighbours the difference is the weight.
        ramps = ((column - self.knots[:-1]) / (self.knots[1:] - self.knots[:-1])).clamp(0, 1)
        edge = torch.zeros_like(column)
        weights = torch.cat((edge + 1, ramps), dim=1) - torch.cat((ramps, edge), dim=1)
        return Encoded(weights @ self.rows, natural, rows)


def _matrix(kind: str, size: int, generator: torch.Generator) -> Tensor:
    """Return float [size, size]."""
    on = generator.device
    if kind == "one_hot":
        return torch.eye(size, device=on)
    if kind == "dct":  # of the identity, not normalised, as scipy.fft.dct gives it
        places = torch.arange(size, dtype=torch.float64, device=on)
        angles: Tensor = math.pi / size * (places[:, None] + 0.5) * places
        return 2 * angles.cos().float()
    normal = torch.randn(size, size, generator=generator, device=on, dtype=torch.float64)
    orthogonal, triangle = torch.linalg.qr(normal)
    rows: Tensor = orthogonal * triangle.diagonal().sign()
    return rows.float()


class Conditional(nn.Module):
    """A layer that may get the conditions of its images, see `through`."""


def through(layer: nn.Module, hidden: Tensor, given: Encoded | None) -> Tensor:
    """Return what a layer makes of hidden values; one that may depend on conditions gets them."""
    result: Tensor = layer(hidden, given) if isinstance(layer, Conditional) else layer(hidden)
    return result


class Chain(nn.Sequential, Conditional):
    """Layers one after the other, with their conditions."""

    def forward(self, hidden: Tensor, given: Encoded | None = None) -> Tensor:
        for layer in self:
            hidden = through(layer, hidden, given)
        return hidden


class Norms:
    """Makes the normalisations of a network: BatchNorms, or dual ones where it has an encoding."""

    def __init__(self, encoding: Encoding | None) -> None:
        self._encoding = encoding

    def __call__(self, channels: int, *, film: bool = True) -> nn.Module:
        """Return one for so many channels; `film` says whether a condition moves them beside choosing statistics."""
        if self._encoding is None:
            return nn.BatchNorm2d(channels)
        return DualNorm(channels, FiLM(self._encoding.size, channels) if film else None)


PLAIN = Norms(None)
"""Makes BatchNorms."""


class FiLM(nn.Module):
    """gamma h + beta per channel, both a small network's function of the code (Perez et al., AAAI 2018)."""

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(size, 2 * channels)
        self.outputs = nn.Linear(2 * channels, 2 * channels)

    def forward(self, hidden: Tensor, codes: Tensor) -> Tensor:
        """Return float [batch, channels, height, width], as it was given."""
        numbers = self.outputs(F.leaky_relu(self.hidden(codes), _SLOPE))
        gamma, beta = F.leaky_relu(numbers, _SLOPE)[:, :, None, None].chunk(2, dim=1)
        return gamma * hidden + beta


class DualNorm(Conditional):
    """One BatchNorm for images whose lambda is 0, one for all others, and FiLM after both where it is given."""

    def __init__(self, channels: int, film: FiLM | None) -> None:
        super().__init__()
        self.natural, self.adversarial, self.film = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels), film

    def forward(self, hidden: Tensor, given: Encoded) -> Tensor:
        """Return float [batch, channels, height, width], as it was given."""
        normalised = self._evaluated(hidden, given) if given.rows is None else self._trained(hidden, given.rows)
        return normalised if self.film is None else self.film(normalised, given.codes)

    def _trained(self, hidden: Tensor, rows: tuple[Tensor, Tensor]) -> Tensor:
        """Normalise each part of the batch by its own statistics."""
        result = torch.empty_like(hidden)
        for norm, places in zip((self.natural, self.adversarial), rows, strict=True):
            if len(places):
                result = result.index_copy(0, places, norm(hidden[places]).to(result.dtype))
        return result

    def _evaluated(self, hidden: Tensor, given: Encoded) -> Tensor:
        """Choose one of two affine functions for each image, so that nothing is computed twice."""
        both = zip(_affine(self.natural), _affine(self.adversarial), strict=True)
        scale, shift = (
            torch.where(given.natural[:, None], natural, other)[:, :, None, None] for natural, other in both
        )
        return hidden * scale + shift


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return scale and shift of a BatchNorm in eval mode: float [channels]."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return scale, norm.bias - norm.running_mean * scale
