"""The pre-activation network that PreActResNet-18 and wide ResNets are instances of."""

from torch import Tensor, nn
from torch.nn import functional as F

from generalist.models.contract import Classifier, Head
from generalist.models.layers.residual import PreActivationBlock, convolution, stages
from generalist.tensors import Images, ImageShape


class PreActivationResNet(Classifier):
    """A 3×3 convolution, stages of pre-activation blocks, bn, relu, mean over pixels, and a linear layer."""

    def __init__(self, shape: ImageShape, head: Head, *, stem: int, widths: tuple[int, ...], blocks: int) -> None:
        super().__init__(shape, head)
        self.stem = convolution(shape.channels, stem, size=3)
        self.blocks = stages(PreActivationBlock, stem, widths=widths, blocks=blocks)
        self.bn = nn.BatchNorm2d(widths[-1])
        self.linear = nn.Linear(widths[-1], self.head.outputs)

    def features(self, normalised: Images) -> Tensor:
        hidden = F.relu(self.bn(self.blocks(self.stem(normalised))))
        logits: Tensor = self.linear(hidden.mean(dim=(2, 3)))
        return logits
