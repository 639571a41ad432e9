"""Residual blocks of two 3×3 convolutions, stages of them, and the network that PreActResNet-18 and WRNs are."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from generalist.errors import BadInput
from generalist.models.contract import Classifier, Encoded, Encoding, Head
from generalist.models.layers.conditioning import PLAIN, Chain, Conditional, Norms, through
from generalist.tensors import Features, Images, ImageShape

Block = Callable[[int, int, int, Norms], nn.Module]
"""(input channels, output channels, stride, what makes normalisations) -> block."""


def convolution(inputs: int, outputs: int, *, size: int, stride: int = 1) -> nn.Conv2d:
    """Return a convolution without bias (a BatchNorm2d follows) that keeps height and width at stride 1."""
    return nn.Conv2d(inputs, outputs, kernel_size=size, stride=stride, padding=size // 2, bias=False)


class BasicBlock(Conditional):
    """Post-activation block (He et al. 2016a, figure 2): relu(x + bn(conv(relu(bn(conv(x)))))).

    A condition's FiLM is after both bn, and not after the shortcut's (published code of Wang et al., NeurIPS 2020).
    """

    def __init__(self, inputs: int, outputs: int, stride: int, norms: Norms = PLAIN) -> None:
        super().__init__()
        self.conv1 = convolution(inputs, outputs, size=3, stride=stride)
        self.bn1 = norms(outputs)
        self.conv2 = convolution(outputs, outputs, size=3)
        self.bn2 = norms(outputs)
        self.shortcut = Chain()
        if stride != 1 or inputs != outputs:
            self.shortcut = Chain(convolution(inputs, outputs, size=1, stride=stride), norms(outputs, film=False))

    def forward(self, hidden: Tensor, given: Encoded | None = None) -> Tensor:
        """Map [batch, inputs, height, width] to [batch, outputs, height / stride, width / stride], rounded up."""
        residual = self.conv2(F.relu(through(self.bn1, self.conv1(hidden), given)))
        return F.relu(through(self.bn2, residual, given) + self.shortcut(hidden, given))


class PreActivationBlock(Conditional):
    """Pre-activation block (He et al. 2016b, figure 4e): x + conv(relu(bn(conv(relu(bn(x)))))).

    Where the shape changes, the shortcut is a 1×1 convolution of the activated input, as in the code of
    Zagoruyko and Komodakis (2016).
    """

    def __init__(self, inputs: int, outputs: int, stride: int, norms: Norms = PLAIN) -> None:
        super().__init__()
        self.bn1 = norms(inputs)
        self.conv1 = convolution(inputs, outputs, size=3, stride=stride)
        self.bn2 = norms(outputs)
        self.conv2 = convolution(outputs, outputs, size=3)
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = convolution(inputs, outputs, size=1, stride=stride)

    def forward(self, hidden: Tensor, given: Encoded | None = None) -> Tensor:
        """Map [batch, inputs, height, width] to [batch, outputs, height / stride, width / stride], rounded up."""
        active = F.relu(through(self.bn1, hidden, given))
        passed: Tensor = hidden if self.shortcut is None else self.shortcut(active)
        residual: Tensor = self.conv2(F.relu(through(self.bn2, self.conv1(active), given)))
        return residual + passed


def stages(block: Block, stem: int, *, widths: tuple[int, ...], blocks: int, norms: Norms) -> Chain:
    """Return the stages of `blocks` blocks each; every stage but the first halves height and width.

    Args:
        block: makes one block.
        stem: channels that the first stage gets.
        widths: channels of each stage.
        blocks: blocks in each stage.
        norms: makes their normalisations.
    """
    made: list[nn.Module] = []
    inputs = stem
    for stage, outputs in enumerate(widths):
        for index in range(blocks):
            made.append(block(inputs, outputs, 2 if stage > 0 and index == 0 else 1, norms))
            inputs = outputs
    return Chain(*made)


def check_size(name: str, shape: ImageShape, *, halvings: int) -> None:
    """Check that each halving has at least two pixels to halve.

    Raises:
        BadInput: the images are smaller.
    """
    least = 2**halvings
    if min(shape.height, shape.width) < least:
        raise BadInput(
            f"model {name} halves images {halvings} times and needs at least {least} × {least} pixels, but the data's"
            f" are {shape.height} × {shape.width}: choose small_cnn, or larger images"
        )


class PreActivationResNet(Classifier):
    """A 3×3 convolution, stages of pre-activation blocks, bn, relu, mean over pixels, and a linear layer.

    A condition's FiLM is after the blocks' bn, and not after the last one.
    """

    def __init__(
        self,
        shape: ImageShape,
        head: Head,
        encoding: Encoding | None,
        *,
        stem: int,
        widths: tuple[int, ...],
        blocks: int,
    ) -> None:
        super().__init__(shape, head, encoding)
        norms = Norms(encoding)
        self.stem = convolution(shape.channels, stem, size=3)
        self.blocks = stages(PreActivationBlock, stem, widths=widths, blocks=blocks, norms=norms)
        self.bn = norms(widths[-1], film=False)
        self.linear = nn.Linear(widths[-1], self.head.outputs)

    def embed(self, normalised: Images, given: Encoded | None = None) -> Features:
        hidden = F.relu(through(self.bn, self.blocks(self.stem(normalised), given), given))
        return hidden.mean(dim=(2, 3))
