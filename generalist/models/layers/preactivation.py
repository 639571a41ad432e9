"""The pre-activation network that PreActResNet-18 and wide ResNets are instances of."""

from torch import nn
from torch.nn import functional as F

from generalist.models.contract import Classifier
from generalist.models.layers.residual import PreActivationBlock, convolution, stages
from generalist.tensors import Features, Images, ImageShape


class PreActivationResNet(Classifier):
    """A 3×3 convolution, stages of pre-activation blocks, bn, relu, mean over pixels, and a linear layer."""

    def __init__(self, shape: ImageShape, *, stem: int, widths: tuple[int, ...], blocks: int) -> None:
        super().__init__(shape)
        self.stem = convolution(shape.channels, stem, size=3)
        self.blocks = stages(PreActivationBlock, stem, widths=widths, blocks=blocks)
        self.bn = nn.BatchNorm2d(widths[-1])
        self.linear = nn.Linear(widths[-1], shape.classes)

    def embed(self, normalised: Images) -> Features:
        hidden = F.relu(self.bn(self.blocks(self.stem(normalised))))
        return hidden.mean(dim=(2, 3))
