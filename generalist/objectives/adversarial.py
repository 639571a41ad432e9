"""Adversarial training with projected gradient descent, known as PGD-AT."""

from typing import ClassVar, Literal

from generalist.attacks import attack_from
from generalist.objectives.attacked import Attacked
from generalist.objectives.contract import Context, Learner, Loss
from generalist.tensors import Batch, Images
from generalist.threats import threat_from


class Adversarial(Attacked):
    """Cross-entropy on images attacked by PGD (Madry et al., ICLR 2018, equation 2.1)."""

    has_label_loss: ClassVar[bool] = True

    name: Literal["adversarial"]

    def attacked(self, context: Context, learner: Learner, batch: Batch) -> Images:
        attack = attack_from(self.attack, threat_from(self.threat))
        return attack(learner.frozen, batch.images, batch.labels, generator=context.generator)

    def loss(self, context: Context, learner: Learner, batch: Batch, attacked: Images) -> Loss:
        """Return the mean cross-entropy on the attacked images."""
        model = learner.model
        raw = model(attacked)
        value = learner.label_loss({"adversarial": raw}, batch.labels, of="adversarial")
        return Loss(value, model.decision(raw))
