"""ResNet-18 in its CIFAR form."""

from typing import Literal

from pydantic import Field
from torch import nn
from torch.nn import functional as F

from generalist.config.bounds import Count
from generalist.models.contract import Architecture, Classifier, Encoded, Encoding, Head
from generalist.models.layers.conditioning import Norms, encoding_of, through
from generalist.models.layers.residual import BasicBlock, check_size, convolution, stages
from generalist.tensors import Features, Images, ImageShape


class ResNet18(Architecture):
    """Four stages of two post-activation blocks (He et al. 2016a) on a 3×3 stem without max-pooling.

    11,173,962 parameters at width 64 for 10 classes of RGB images.
    """

    name: Literal["resnet18"]
    width: Count = Field(64, le=8192, description="channels of the first stage; each later one has twice as many")

    def build(self, shape: ImageShape) -> Classifier:
        check_size(self.name, shape, halvings=3)
        return _Network(shape, self.head(shape.classes), encoding_of(self.condition), self.width)


class _Network(Classifier):
    def __init__(self, shape: ImageShape, head: Head, encoding: Encoding | None, width: int) -> None:
        super().__init__(shape, head, encoding)
        norms = Norms(encoding)
        self.stem = convolution(shape.channels, width, size=3)
        self.bn = norms(width)
        widths = (width, 2 * width, 4 * width, 8 * width)
        self.blocks = stages(BasicBlock, width, widths=widths, blocks=2, norms=norms)
        self.linear = nn.Linear(8 * width, self.head.outputs)

    def embed(self, normalised: Images, given: Encoded | None = None) -> Features:
        hidden = F.relu(through(self.bn, self.stem(normalised), given))
        features: Features = self.blocks(hidden, given).mean(dim=(2, 3))
        return features
