"""Mutual adversarial training: peers learn from each other's attacked images, and from what others say of theirs."""

from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from generalist.attacks.losses import kl_divergence
from generalist.config import Schedule
from generalist.config.bounds import NonNegativeSchedule, Positive
from generalist.config.quantity import Quantity
from generalist.models import DECISION
from generalist.objectives.contract import Around, Context, Learner, Loss, Peer
from generalist.tensors import AttackedImages, Batch, Logits


class Mutual(Around):
    """a1 L(x') + a2 mean_j t^2 KL(p_j(x') || p(x')) + a3 mean_j t^2 KL(p_j(x'_j) || p(x'_j)), j over the peers.

    L is the objective `base`, x' are its attacked images, x'_j those of peer j; peers are frozen, in one snapshot, and
    all probabilities are at the temperature t. A reconstruction of MAT (Liu et al., arXiv 2112.05005), whose losses are
    not public; with a1 = 0.05, a2 = 0.95 and a3 = 0 it is the coupling of CAT (Liu et al., arXiv 2303.14922).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"peers"})

    name: Literal["mutual"]
    base_weight: NonNegativeSchedule = Field(Schedule.model_validate(0.5), description="a1: weight of the base")
    own_weight: NonNegativeSchedule = Field(
        Schedule.model_validate(0.25),
        description="a2: of the divergence from what peers say of its attacked images",
    )
    peers_weight: NonNegativeSchedule = Field(
        Schedule.model_validate(0.25), description="a3: weight of what it learns on its peers' attacked images"
    )
    learns_by: Literal["divergence", "labels"] = Field(
        "divergence", description="on the peers' attacked images: from what the peer says of them, or by cross-entropy"
    )
    temperature: Positive = Field(Quantity(1), description="t: logits are divided by it before they are compared")
    student: bool = Field(False, description="it learns from its peers, and none of them from it")

    @model_validator(mode="after")
    def _base_stands_alone(self) -> "Mutual":
        if self.base.needs or self.base.attacks_per_image > 1:
            lacks = " and ".join(sorted(self.base.needs)) or "several attacks of each image"
            raise ValueError(f"'base' of mutual is {self.base.name}, which needs {lacks}: take another objective")
        return self

    @property
    def seen_by_peers(self) -> bool:
        return not self.student

    def attacked(self, context: Context, learner: Learner, batch: Batch) -> AttackedImages:
        return self.own_base.attacked(context, learner, batch)

    def loss(self, context: Context, learner: Learner, batch: Batch, attacked: AttackedImages) -> Loss:
        """Return the weighted sum; training accuracy is the base's."""
        model, base = learner.model, self.own_base.loss(context, learner, batch, attacked)
        value = context.at(self.base_weight) * base.value
        if weight := context.at(self.own_weight):
            told = [self._divergence(base.logits, peer, attacked) for peer in learner.peers]
            value = value + weight * torch.stack(told).mean()
        if weight := context.at(self.peers_weight):
            learnt = []
            for peer in learner.peers:
                assert peer.attacked is not None  # all have attacked before any loss is asked for
                raw = model(peer.attacked)
                if self.learns_by == "labels":
                    learnt.append(F.cross_entropy(raw, batch.labels))
                else:
                    learnt.append(self._divergence(model.decision(raw), peer, peer.attacked))
            value = value + weight * torch.stack(learnt).mean()
        return Loss(value, base.logits)

    def _divergence(self, logits: Logits, peer: Peer, images: AttackedImages) -> Tensor:
        """Return how far a prediction is from what a peer says of the same images, a mean over them."""
        heat = float(self.temperature)
        with torch.no_grad():
            said = F.log_softmax(peer.network.view(DECISION)(images) / heat, dim=1)
        return heat**2 * kl_divergence(logits / heat, said).mean()
