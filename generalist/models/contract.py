"""What every model is to the rest of the library, and what every architecture's options can do."""

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn

from generalist.config import ModelOptions
from generalist.tensors import Features, Images, ImageShape, Labels, Logits, Mask, PerImage

Role = Literal["natural", "adversarial"]

DECISION = "decision"
"""The name of the deployed rule among the views of a head."""


@dataclass(frozen=True)
class LossView:
    """A view with losses of its own, for attacks that know more of a head than logits tell.

    Attributes:
        function: of raw outputs, or of images.
        loss: `loss(outputs, labels)`, or `loss(outputs, labels, targets)` if it aims at classes: what attacks raise in
            place of their own, one number per image.
    """

    function: Callable[[Tensor], Tensor]
    loss: Callable[..., Tensor]

    def __call__(self, given: Tensor) -> Tensor:
        return self.function(given)


@dataclass(frozen=True)
class Head:
    """What the raw outputs of a network mean, for so many classes.

    The methods below are those of a plain classifier, with one logit for each class. A head with dummy classes
    overrides them, so that objectives, attacks, evaluation and export need not know.
    """

    classes: int

    @property
    def outputs(self) -> int:
        """The number of raw outputs."""
        return self.classes

    def decision(self, raw: Tensor) -> Logits:
        """Turn raw outputs into the [batch, classes] logits of the deployed rule."""
        return raw

    def views(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Return the differentiable functions of raw outputs through which an attack that knows the head looks.

        Attacks on the decision, which is the first, try the gradients of all; PGD has a column for each. Their first
        outputs are those of the classes; a `LossView` says itself what to raise. Verdicts are always by the decision.
        """
        return {DECISION: self.decision}

    def nonadaptive(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Return what an attack takes for the decision that doesn't know the head, by name; none where that is true.

        Such an attack ends where that function is fooled. It has columns of its own, marked as non-adaptive; no
        robust accuracy is theirs. Attacks on the decision try these gradients, too.
        """
        return {}

    def targets(self, labels: Labels, role: Role) -> Tensor:
        """Return what the raw outputs are trained towards: class indices, or probabilities [batch, outputs]."""
        return labels


class Encoded(NamedTuple):
    """The conditions of a batch, as layers get them.

    Attributes:
        codes: float [batch, numbers of a code].
        natural: whether lambda is 0.
        rows: in training, int64 places in the batch of those images, and of the others.
    """

    codes: Tensor
    natural: Mask
    rows: tuple[Tensor, Tensor] | None = None


class Encoding(nn.Module):
    """What layers get of a condition: the first part of a conditional network.

    Attributes:
        choices: values of lambda to train at, in rising order from 0.
        size: numbers of a code.
    """

    choices: tuple[float, ...]
    size: int

    @abstractmethod
    def forward(self, condition: PerImage) -> Encoded:
        """Encode each image's lambda."""

    @abstractmethod
    def initialise(self, generator: torch.Generator) -> None:
        """Fill its buffers; `generator` is the only source of randomness."""


class Classifier(nn.Module):
    """A network from images in [0, 1] to raw outputs, with normalisation inside, and the head that interprets them.

    A conditional one, which has an encoding, gets a condition beside the images: lambda in [0, 1] of each.

    Attributes:
        shape: of images, with the number of classes.
        head: what the raw outputs mean; it says how many the network must have.
        encoding: of conditions; None where the network takes none.
        narrow_norms: what it has for each narrower width; None where it has one width alone. See `models.at_width`.
    """

    mean: Tensor
    std: Tensor
    linear: nn.Linear

    def __init__(self, shape: ImageShape, head: Head | None = None, encoding: Encoding | None = None) -> None:
        super().__init__()
        self.shape, self.head, self.encoding = shape, head or Head(shape.classes), encoding
        self.narrow_norms: nn.Module | None = None
        # Constants, not state: averaging them would only round them. They name their device, see `build`.
        mean, std = torch.tensor(shape.mean, device="cpu"), torch.tensor(shape.std, device="cpu")
        self.register_buffer("mean", mean.view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", std.view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Images, condition: PerImage | None = None) -> Tensor:
        """Return raw outputs [batch, outputs] for images [batch, channels, height, width] in [0, 1]."""
        return self.raw_outputs(self.features(images, condition))

    def features(self, images: Images, condition: PerImage | None = None) -> Features:
        """Return penultimate features for images in [0, 1]: what the last linear layer gets.

        Raises:
            TypeError: there is no condition, and the network takes one, or the other way round.
        """
        if (condition is None) != (self.encoding is None):
            raise TypeError("a network takes a condition if it has an encoding, and only then")
        normalised = (images - self.mean) / self.std
        if self.encoding is None or condition is None:
            return self.embed(normalised)
        return self.embed(normalised, self.encoding(condition))

    @abstractmethod
    def embed(self, normalised: Images, given: Encoded | None = None) -> Features:
        """Return penultimate features for normalised images; `given` are their conditions, where there are any."""

    def raw_outputs(self, features: Features) -> Tensor:
        """Return raw outputs for penultimate features, which the last layer, `linear`, makes of them."""
        raw: Tensor = self.linear(features)
        return raw

    def decision(self, raw: Tensor) -> Logits:
        """Turn raw outputs into logits, see `Head.decision`."""
        return self.head.decision(raw)

    def targets(self, labels: Labels, role: Role) -> Tensor:
        """Return what the raw outputs are trained towards, see `Head.targets`."""
        return self.head.targets(labels, role)

    def views(self) -> dict[str, Callable[..., Tensor]]:
        """Return the views of the head as functions of images, and of their conditions."""
        return {name: self._seen(view) for name, view in self.head.views().items()}

    def nonadaptive(self) -> dict[str, Callable[..., Tensor]]:
        """Return what the head says of attacks that don't know it, as functions of images."""
        return {name: self._seen(view) for name, view in self.head.nonadaptive().items()}

    def _seen(self, view: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
        through = partial(self._viewed, view)
        return replace(view, function=through) if isinstance(view, LossView) else through

    def _viewed(self, view: Callable[[Tensor], Tensor], images: Images, condition: PerImage | None = None) -> Tensor:
        return view(self(images) if condition is None else self(images, condition))


class Architecture(ModelOptions):
    """Options of one architecture; `self.head(shape.classes)` is the head that it must have."""

    def narrowed(self, share: float) -> "Architecture":
        """Return the options of the network with that share of the channels: all are in proportion to `width`.

        Raises:
            ValueError: it has no `width`, or the share of it is no whole number.
        """
        width = getattr(self, "width", None)
        if width is None:
            raise ValueError(f"'widths' can't be had with the network {self.name}, which has no 'width': leave it out")
        channels = round(share * width)
        if not math.isclose(channels, share * width, rel_tol=1e-6):
            raise ValueError(
                f"'widths' has {share:g}, but that share of 'width' {width} is no whole number of channels: change one"
            )
        return self.model_copy(update={"width": channels, "widths": ()})

    @model_validator(mode="after")
    def _widths_are_of_whole_channels(self) -> Self:
        for share in self.widths:
            self.narrowed(float(share))
        return self

    @abstractmethod
    def build(self, shape: ImageShape) -> Classifier:
        """Return the network for images of this shape; to be called through the function `build`.

        A constant that a network computes when it is made must name its device: `device="cpu"`.

        Raises:
            BadInput: the architecture can't take images of this shape.
        """
