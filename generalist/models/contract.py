"""What every model is to the rest of the library, and what every architecture's options can do."""

import math
import os
import threading
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from generalist.config import ModelOptions
from generalist.errors import BadInput
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
    """

    mean: Tensor
    std: Tensor
    linear: nn.Linear

    def __init__(self, shape: ImageShape, head: Head | None = None, encoding: Encoding | None = None) -> None:
        super().__init__()
        self.shape, self.head, self.encoding = shape, head or Head(shape.classes), encoding
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

    @abstractmethod
    def build(self, shape: ImageShape) -> Classifier:
        """Return the network for images of this shape; to be called through the function `build`.

        A constant that a network computes when it is made must name its device: `device="cpu"`.

        Raises:
            BadInput: the architecture can't take images of this shape.
        """


Made = TypeVar("Made")
_BUILDING = threading.Lock()  # the block `with torch.device` moves a global of torch


def unfilled(make: Callable[[], Made]) -> Made:
    """Return a module on the meta device: its constructor draws no numbers and takes no memory."""
    with _BUILDING, torch.device("meta"):
        return make()


def build(options: ModelOptions, shape: ImageShape) -> Classifier:
    """Return the network that the configuration names, on the CPU, without weights yet.

    Every parameter and buffer is NaN (zero where it counts) until `initialise` or `load_state_dict` fills
    it: constructors draw initial weights from torch's global generator, so they run where nothing is drawn.

    Raises:
        BadInput: the architecture can't take images of this shape, or the condition that it is given, or is larger than
            this machine's memory.
    """
    if not isinstance(options, Architecture):
        raise TypeError(f"{type(options).__name__} is not an architecture")
    model = unfilled(lambda: options.build(shape))
    if options.condition is not None and model.encoding is None:
        raise BadInput(f"model.condition is given, but the network {options.name} takes no condition: set it to null")
    _check_memory(model, options.name)
    constants = {name: buffer for name, buffer in model.named_buffers() if not buffer.is_meta}
    model.to_empty(device="cpu")
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if name in constants:
                tensor.copy_(constants[name])
            else:
                tensor.fill_(math.nan if tensor.is_floating_point() else 0)
    return model


def _check_memory(model: Classifier, name: str) -> None:
    """Check that memory suffices, before a network on the meta device is given it."""
    needed = sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        raise BadInput(
            f"a {name} of these options needs {needed / 2**30:,.0f} GiB for its weights, and this machine has"
            f" {memory / 2**30:,.0f} GiB: choose a smaller one"
        )


def initialise(model: nn.Module, generator: torch.Generator) -> None:
    """Fill all parameters and buffers as torch's own constructors would, with numbers from `generator`.

    Weights and biases of convolutions and linear layers are uniform in ±1/sqrt(fan-in), which is what
    kaiming_uniform_(a=sqrt(5)) comes to; BatchNorms start as the identity.

    Args:
        model: on the generator's device.
        generator: the only source of randomness.

    Raises:
        TypeError: a parameter or buffer belongs to a layer whose initialisation is not known here.
    """
    for key in model.state_dict():
        owner = model.get_submodule(key.rpartition(".")[0])
        if type(owner) not in {nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d} and not isinstance(
            owner, Encoding
        ):
            raise TypeError(f"no initialisation is known for {key}, which belongs to a {type(owner).__name__}")
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
            if module.bias is not None:
                bound = 1 / math.sqrt(module.weight[0].numel())
                nn.init.uniform_(module.bias, -bound, bound, generator=generator)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.reset_parameters()
        elif isinstance(module, Encoding):
            module.initialise(generator)
