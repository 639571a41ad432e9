"""The section model: an architecture, its head, its condition and its widths."""

from abc import abstractmethod
from itertools import pairwise
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    SerializationInfo,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
)

from generalist.config.bounds import Width, unused
from generalist.config.condition import ConditionOptions
from generalist.config.quantity import Quantity
from generalist.config.section import Plugin, plugin


class HeadOptions(Plugin):
    """What the raw outputs of a network mean; each head adds its own options."""

    @abstractmethod
    def __call__(self, classes: int) -> Any:
        """Return the head for so many classes, a `generalist.models.Head`."""


class ModelOptions(Plugin):
    """The network; each architecture adds its own options."""

    head: Annotated[SerializeAsAny[HeadOptions], BeforeValidator(lambda written: plugin("models.heads", written))] = (
        Field(
            default_factory=lambda: plugin("models.heads", {"name": "plain"}),
            description="what the raw outputs mean: {name: plain}, one logit for each class, or {name: dummy}",
        )
    )
    condition: ConditionOptions | None = Field(
        None,
        exclude_if=unused,
        description="a number per image that the network depends on, as objectives that draw one need; null for none",
    )

    widths: tuple[Width, ...] = Field(
        (),
        exclude_if=unused,
        description="shares of the channels at which the network is trained, deployed and measured, in rising order to"
        " 1, such as [0.5, 0.75, 1]; each has BatchNorms of its own; empty for the whole network alone",
    )

    @field_validator("widths")
    @classmethod
    def _rise_to_the_whole(cls, widths: tuple[Quantity, ...]) -> tuple[Quantity, ...]:
        if widths and (len(widths) < 2 or float(widths[-1]) != 1 or any(b <= a for a, b in pairwise(widths))):
            raise ValueError("widths must rise to 1, the whole network, with one more at least, such as [0.5, 0.75, 1]")
        return widths

    @model_serializer(mode="wrap")
    def _without_a_plain_head(self, written: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """Leave out of digests what every network had before there was a choice."""
        options: dict[str, Any] = written(self)
        if isinstance(info.context, dict) and info.context.get("canonical") and options["head"] == {"name": "plain"}:
            del options["head"]
        return options
