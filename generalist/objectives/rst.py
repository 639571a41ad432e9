"""RST: robust self-training, with images that have no labels but a natural expert's."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch.nn import functional as F

from generalist.attacks.losses import kl_divergence
from generalist.config import Schedule
from generalist.config.bounds import NonNegativeSchedule
from generalist.objectives.attacked import AttackedFromBeside
from generalist.objectives.contract import Context, Learner, Loss
from generalist.tensors import Batch, Images


class Rst(AttackedFromBeside):
    """L(x, y) + weight L(u, y_t(u)), L(x, y) = CE(f(x), y) + beta KL(f(x) || f(x')), x' by ascent on the divergence.

    u are images without labels, and y_t(u) is what the teacher says of them (Carmon et al. and Raghunathan et al.,
    2019-2020). Each step takes as many of them as of the labelled images.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"teacher", "unlabelled"})

    name: Literal["rst"]
    beta: NonNegativeSchedule = Field(Schedule.model_validate(6), description="weight of the divergence")
    weight: NonNegativeSchedule = Field(Schedule.model_validate(1), description="of images without labels")

    @property
    def gradients_per_image(self) -> int:
        return 2 * self.attack.steps

    def attacked(self, context: Context, learner: Learner, batch: Batch) -> Images:
        assert batch.unlabelled is not None  # the training is refused without them
        attacked = []
        for images in (batch.images, batch.unlabelled):
            with torch.no_grad():
                clean = F.log_softmax(learner.frozen(images), dim=1)
            attacked.append(self.from_beside(context, learner.frozen, images, clean, raising=kl_divergence))
        return torch.cat(attacked)

    def loss(self, context: Context, learner: Learner, batch: Batch, attacked: Images) -> Loss:
        """Return the mean of all terms; training accuracy is that on the attacked images with labels."""
        assert learner.teacher is not None and batch.unlabelled is not None
        model = learner.model
        with torch.no_grad():
            said = learner.teacher.view("decision")(batch.unlabelled).argmax(dim=1)
        raw, raw_attacked = model(torch.cat((batch.images, batch.unlabelled))), model(attacked)
        wrong = F.cross_entropy(raw, torch.cat((batch.labels, said)), reduction="none")
        moved = kl_divergence(raw_attacked, F.log_softmax(raw, dim=1))
        labelled, unlabelled = (wrong + context.at(self.beta) * moved).chunk(2)
        value = labelled.mean() + context.at(self.weight) * unlabelled.mean()
        return Loss(value, model.decision(raw_attacked[: len(batch)]))
