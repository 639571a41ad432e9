"""Residual blocks of two 3×3 convolutions, stages of them, and the network that PreActResNet-18 and WRNs are."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from generalist.errors import BadInput
from generalist.models.contract import Classifier
from generalist.tensors import Images, ImageShape

Block = Callable[[int, int, int], nn.Module]
"""(input channels, output channels, stride) -> block."""


def convolution(inputs: int, outputs: int, *, size: int, stride: int = 1) -> nn.Conv2d:
    """Return a convolution without bias (a BatchNorm2d follows) that keeps height and width at stride 1."""
    return nn.Conv2d(inputs, outputs, kernel_size=size, stride=stride, padding=size // 2, bias=False)


class BasicBlock(nn.Module):
    """Post-activation block (He et al. 2016a, figure 2): relu(x + bn(conv(relu(bn(conv(x))))))."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = convolution(inputs, outputs, size=3, stride=stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = convolution(outputs, outputs, size=3)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(convolution(inputs, outputs, size=1, stride=stride), nn.BatchNorm2d(outputs))

    def forward(self, hidden: Tensor) -> Tensor:
        """Map [batch, inputs, height, width] to [batch, outputs, height / stride, width / stride], rounded up."""
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(hidden)))))
        return F.relu(residual + self.shortcut(hidden))


class PreActivationBlock(nn.Module):
    """Pre-activation block (He et al. 2016b, figure 4e): x + conv(relu(bn(conv(relu(bn(x)))))).

    Where the shape changes, the shortcut is a 1×1 convolution of the activated input, as in the code of
    Zagoruyko and Komodakis (2016).
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = convolution(inputs, outputs, size=3, stride=stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = convolution(outputs, outputs, size=3)
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = convolution(inputs, outputs, size=1, stride=stride)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map [batch, inputs, height, width] to [batch, outputs, height / stride, width / stride], rounded up."""
        active = F.relu(self.bn1(hidden))
        passed: Tensor = hidden if self.shortcut is None else self.shortcut(active)
        residual: Tensor = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return residual + passed


def stages(block: Block, stem: int, *, widths: tuple[int, ...], blocks: int) -> nn.Sequential:
    """Return the stages of `blocks` blocks each; every stage but the first halves height and width.

    Args:
        block: makes one block.
        stem: channels that the first stage gets.
        widths: channels of each stage.
        blocks: blocks in each stage.
    """
    made: list[nn.Module] = []
    inputs = stem
    for stage, outputs in enumerate(widths):
        for index in range(blocks):
            made.append(block(inputs, outputs, 2 if stage > 0 and index == 0 else 1))
            inputs = outputs
    return nn.Sequential(*made)


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
    """A 3×3 convolution, stages of pre-activation blocks, bn, relu, mean over pixels, and a linear layer."""

    def __init__(self, shape: ImageShape, *, stem: int, widths: tuple[int, ...], blocks: int) -> None:
        super().__init__(shape)
        self.stem = convolution(shape.channels, stem, size=3)
        self.blocks = stages(PreActivationBlock, stem, widths=widths, blocks=blocks)
        self.bn = nn.BatchNorm2d(widths[-1])
        self.linear = nn.Linear(widths[-1], shape.classes)

    def features(self, normalised: Images) -> Tensor:
        hidden = F.relu(self.bn(self.blocks(self.stem(normalised))))
        logits: Tensor = self.linear(hidden.mean(dim=(2, 3)))
        return logits
