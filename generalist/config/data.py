"""The section data: where images come from and how they are split."""

from typing import Literal

from pydantic import Field, model_validator

from generalist.config.bounds import Fraction, Many
from generalist.config.quantity import Quantity
from generalist.config.section import Plugin

REST = "rest"
"""In place of a folder of unlabelled images: those that `data.images` leaves out."""


class DataOptions(Plugin):
    """Where the images come from and how they are split; each source adds its own options."""

    validation: Fraction = Field(Quantity("0.2"), description="share of the training images held back for choices")
    seed: int = Field(
        0, ge=0, lt=2**32, description="seed of the validation split (and of the test split where the source has none)"
    )
    images: Many | Literal["all"] = Field(
        "all",
        description="to try things: n training images with the shares of all classes, of which validation takes its"
        " part, or all",
    )
    copies: Literal["keep", "remove"] = Field(
        "keep",
        description="training images that lie in the validation or test split, too, are counted, and kept or removed",
    )

    unlabelled: str | None = Field(
        None,
        description="images without labels, for objectives that need them: a folder, an .npz file with uint8 images"
        " [n, channels, height, width], or rest, the training images that `images` leaves out; null for none",
        exclude_if=lambda named: named is None,  # so that data without them keeps its digests
    )

    @model_validator(mode="after")
    def _some_are_left(self) -> "DataOptions":
        if self.unlabelled == REST and self.images == "all":
            raise ValueError(
                "'unlabelled' is rest, but 'images' is all and leaves none out: let 'images' be a number, or name a"
                " folder (one that is called so as ./rest)"
            )
        return self

    @property
    def title(self) -> str:
        """What people call these images."""
        return self.name
