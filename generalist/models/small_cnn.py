"""A small network for small images, made for adversarial training on a CPU."""

from typing import Literal

from pydantic import Field
from torch import nn
from torch.nn import functional as F

from generalist.config.bounds import Count
from generalist.models.contract import Architecture, Classifier, Encoded, Encoding, Head
from generalist.models.layers.conditioning import Norms, encoding_of, through
from generalist.tensors import Features, Images, ImageShape


class SmallCnn(Architecture):
    """Blocks of 2×2 pixels become channels, then two 3×3 convolutions and a linear layer.

    The rearrangement is a permutation of pixels, so threats are unchanged, and convolutions at half
    the size cost a third of strided ones in the backward pass, of which adversarial training is made.
    It has no BatchNorm; with a condition it has dual ones with FiLM, one after each convolution.
    """

    name: Literal["small_cnn"]
    width: Count = Field(32, le=8192, description="channels of both convolutions")

    def build(self, shape: ImageShape) -> Classifier:
        return _Network(shape, self.head(shape.classes), encoding_of(self.condition), self.width)


class _Network(Classifier):
    def __init__(self, shape: ImageShape, head: Head, encoding: Encoding | None, width: int) -> None:
        super().__init__(shape, head, encoding)
        height, columns = -(-shape.height // 2), -(-shape.width // 2)
        self.padding = (0, shape.width % 2, 0, shape.height % 2)
        self.conv1 = nn.Conv2d(4 * shape.channels, width, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1)
        norms = Norms(encoding)
        self.norm1, self.norm2 = (nn.Identity() if encoding is None else norms(width) for _ in range(2))
        self.linear = nn.Linear(width * height * columns, self.head.outputs)

    def embed(self, normalised: Images, given: Encoded | None = None) -> Features:
        blocks = F.pixel_unshuffle(F.pad(normalised, self.padding), 2)
        hidden = F.relu(through(self.norm1, self.conv1(blocks), given))
        hidden = F.relu(through(self.norm2, self.conv2(hidden), given))
        return hidden.flatten(1)
