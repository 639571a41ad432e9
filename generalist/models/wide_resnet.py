"""Wide ResNets of any depth and width."""

from typing import Literal

from pydantic import Field, field_validator

from generalist.config.bounds import Count
from generalist.models.contract import Architecture, Classifier
from generalist.models.layers.conditioning import encoding_of
from generalist.models.layers.residual import PreActivationResNet, check_size
from generalist.tensors import ImageShape


class WideResNet(Architecture):
    """WRN-depth-widen (Zagoruyko and Komodakis 2016): three stages of (depth - 4) / 6 pre-activation blocks.

    For 10 classes of RGB images WRN-28-10 has 36,479,194 parameters and WRN-34-10 has 46,160,474.
    """

    name: Literal["wide_resnet"]
    depth: Count = Field(28, le=1000, description="layers: 6 n + 4 for n blocks a stage, such as 10, 16, 28 or 34")
    widen: Count = Field(10, le=100, description="k: factor on the channels of the three stages")
    width: Count = Field(16, le=8192, description="channels of the stem, and of the first stage before widening")

    @field_validator("depth")
    @classmethod
    def _whole_blocks(cls, depth: int) -> int:
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"{depth} is not 6 n + 4, such as 10, 16, 22, 28 or 34")
        return depth

    def build(self, shape: ImageShape) -> Classifier:
        check_size(self.name, shape, halvings=2)
        first = self.width * self.widen
        blocks = (self.depth - 4) // 6
        return PreActivationResNet(
            shape,
            self.head(shape.classes),
            encoding_of(self.condition),
            stem=self.width,
            widths=(first, 2 * first, 4 * first),
            blocks=blocks,
        )
