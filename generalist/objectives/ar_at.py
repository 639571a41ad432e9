"""AR-AT: features of attacked images are drawn towards clean ones, through a predictor and with BatchNorms apart."""

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from generalist.config import Schedule
from generalist.config.bounds import NonNegativeSchedule
from generalist.models import Classifier
from generalist.objectives.attacked import Attacked
from generalist.objectives.contract import Context, Learner, Loss
from generalist.tensors import Batch, Features, Images

_BOTTLENECK = 4
"""The predictor's hidden layer has so much less numbers than features (published code: `pred_dim_ratio` 0.25)."""


class ArAt(Attacked):
    """a CE(f(x'), y) + (1 - a) CE(g(x), y) + w mean_i (1 - cos(h(F(x'_i)), F_g(x_i))), x' by PGD on f.

    g is f with BatchNorms of its own, F and F_g are both networks' penultimate features, of which the clean ones take
    no gradient, h is a predictor, and a is the accuracy of g on clean images in the epoch of training before (Waseda et
    al., ICLR 2025, and their code). f alone is deployed.
    """

    name: Literal["ar_at"]
    invariance: NonNegativeSchedule = Field(
        Schedule.model_validate(30), description="weight of the distance from the clean features"
    )

    def auxiliary(self, model: Classifier) -> nn.Module:
        """Return the BatchNorms of g, and the predictor."""
        return _Beside(model)

    def tables(self, classes: int, images: int) -> dict[str, Tensor]:
        counts = {name: torch.zeros(1) for name in ("right", "seen", "accuracy")}
        return counts | {"epoch": torch.full((1,), -1)}

    def attacked(self, context: Context, learner: Learner, batch: Batch) -> Images:
        tables = context.tables
        begins = tables["epoch"] != context.epoch
        ended = begins & (tables["seen"] > 0)
        tables["accuracy"].copy_(torch.where(ended, tables["right"] / tables["seen"].clamp_min(1), tables["accuracy"]))
        for name in ("right", "seen"):
            tables[name].mul_(~begins)
        tables["epoch"].fill_(context.epoch)
        network = learner.frozen.network
        with torch.no_grad():
            said = network.decision(network.raw_outputs(_beside(learner).clean_features(network, batch.images)))
        tables["right"].add_((said.argmax(dim=1) == batch.labels).sum())
        tables["seen"].add_(len(batch))
        return self.by_cross_entropy(context, learner, batch)

    def loss(self, context: Context, learner: Learner, batch: Batch, attacked: Images) -> Loss:
        """Return the sum of all terms; training accuracy is that on the attacked images."""
        model, beside, accuracy = learner.model, _beside(learner), context.tables["accuracy"][0]
        clean, features = beside.clean_features(model, batch.images), model.features(attacked)
        raw = model.raw_outputs(features)
        robust, natural = F.cross_entropy(raw, batch.labels), F.cross_entropy(model.raw_outputs(clean), batch.labels)
        apart = 1 - F.cosine_similarity(beside.predictor(features), clean.detach(), dim=1)
        value = accuracy * robust + (1 - accuracy) * natural + context.at(self.invariance) * apart.mean()
        return Loss(value, model.decision(raw))


class _Beside(nn.Module):
    """What is trained along with a network: a BatchNorm for each of its own, for clean images, and the predictor."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        own = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.BatchNorm2d)}
        self.names = tuple(own)
        self.norms = nn.ModuleList(nn.BatchNorm2d(layer.num_features) for layer in own.values())
        width = model.linear.in_features
        hidden = max(width // _BOTTLENECK, 1)
        self.predictor = nn.Sequential(
            nn.Linear(width, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, width)
        )

    def clean_features(self, network: Classifier, images: Images) -> Features:
        """Return the features of a network in its mode, with the BatchNorms for clean images in place of its own."""
        swapped: Mapping[str, Tensor] = {
            f"network.{name}.{key}": tensor
            for name, norm in zip(self.names, self.norms, strict=True)
            for key, tensor in norm.state_dict(keep_vars=True).items()
        }
        features: Features = functional_call(_Featured(network), dict(swapped), (images,))
        return features


class _Featured(nn.Module):
    """A network as the function of images that its features are."""

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Images) -> Features:
        return self.network.features(images)


def _beside(learner: Learner) -> _Beside:
    assert isinstance(learner.auxiliary, _Beside)  # which `auxiliary` gave
    return learner.auxiliary
