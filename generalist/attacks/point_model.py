"""A model as a function of the points of a threat's space, so that attacks move points as they move images."""

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from generalist.attacks.losses import Network
from generalist.attacks.model_adapter import decision_and_views
from generalist.models import LossView
from generalist.tensors import Logits
from generalist.threats import Space
from generalist.threats.spaces.contract import Points


class PointModel(nn.Module):
    """The decision of a model at the image that a point gives.

    Args:
        model: from images to logits; its parameters are this module's.
        space: from points to images.
    """

    def __init__(self, model: nn.Module | Network, space: Space) -> None:
        super().__init__()
        self.model, self.space = model, space

    def forward(self, points: Points) -> Logits:
        decision, _ = decision_and_views(self.model, None)
        return decision(self.space.images(points))


def views_of_points(
    model: nn.Module | Network, views: Mapping[str, Network] | None, space: Space
) -> dict[str, Network]:
    """Return all views of a model as functions of points; one with losses of its own keeps them."""

    def through(view: Network) -> Network:
        if isinstance(view, LossView):
            return replace(view, function=space.through(view.function))
        return space.through(view)

    return {name: through(view) for name, view in decision_and_views(model, views)[1].items()}
