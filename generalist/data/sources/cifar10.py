"""CIFAR-10: 50,000 + 10,000 colour images of 32×32 pixels in 10 classes."""

from typing import ClassVar, Literal

from pydantic import Field

from generalist.data.torchvision_source import CifarSource


class Cifar10(CifarSource):
    """Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html."""

    reads: ClassVar[str] = "CIFAR10"

    name: Literal["cifar10"]
    path: str = Field("data/raw/cifar10", description="cifar-10-batches-py, or the folder that holds it")
