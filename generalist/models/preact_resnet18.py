"""PreActResNet-18 in its CIFAR form."""

from typing import Literal

from pydantic import Field

from generalist.config.bounds import Count
from generalist.models.contract import Architecture, Classifier
from generalist.models.layers.conditioning import encoding_of
from generalist.models.layers.residual import PreActivationResNet, check_size
from generalist.tensors import ImageShape


class PreActResNet18(Architecture):
    """Four stages of two pre-activation blocks (He et al. 2016b), with the paper's bn and relu after the last.

    11,172,170 parameters at width 64 for 10 classes of RGB images, as in the robust-overfitting code of
    Rice et al. (2020); the form without the last bn, which is also in use, has 11,171,146.
    """

    name: Literal["preact_resnet18"]
    width: Count = Field(64, le=8192, description="channels of the first stage; each later one has twice as many")

    def build(self, shape: ImageShape) -> Classifier:
        check_size(self.name, shape, halvings=3)
        width = self.width
        return PreActivationResNet(
            shape,
            self.head(shape.classes),
            encoding_of(self.condition),
            stem=width,
            widths=(width, 2 * width, 4 * width, 8 * width),
            blocks=2,
        )
