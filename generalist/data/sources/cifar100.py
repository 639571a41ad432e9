"""CIFAR-100: 50,000 + 10,000 colour images of 32×32 pixels in 100 (fine) classes."""

from typing import ClassVar, Literal

from pydantic import Field

from generalist.data.torchvision_source import CifarSource


class Cifar100(CifarSource):
    """Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html."""

    reads: ClassVar[str] = "CIFAR100"

    name: Literal["cifar100"]
    path: str = Field("data/raw/cifar100", description="cifar-100-python, or the folder that holds it")
