"""Clean-feature anchoring: a robust expert tied to the clean features of a natural one, at whose weights it starts."""

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from generalist.attacks.gradient import input_gradient
from generalist.attacks.losses import squared_distance
from generalist.config import Quantity
from generalist.objectives.attacked import AttackedFromBeside
from generalist.objectives.contract import Context, Learner, Loss
from generalist.tensors import Batch, Images, PerImage

_TINY = 1e-12  # beside gradients of 0, as those of a student that still is its teacher
_Factor = Annotated[Quantity, Field(gt=0, le=100)]


class Anchored(AttackedFromBeside):
    """||F(x') - F_t(x)||^2, x' by ascent on the same distance within eps_i (clean-feature anchoring, FAT, 2026).

    F are the learner's penultimate features, F_t the teacher's, always of the clean image. No label is used, so the
    last layer stays as it is where the expert starts: its `sequence` names one expert as `start_from` and `teacher`.

    Images whose loss is steep get less of the ball: eps_i = eps w_i with w_i = clip(mean(g) / g_i) scaled to mean 1,
    g_i = ||grad_x ||F(x_i) - F_t(x_i)||^2||_2. The step size is scaled alike.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"teacher", "start_from"})

    name: Literal["anchored"]
    clip: tuple[_Factor, _Factor] = Field(
        (Quantity("0.5"), Quantity("1.5")),
        description="bounds of an image's share of eps, before the mean is set to 1; [1, 1] for one eps",
    )

    @property
    def gradients_per_image(self) -> int:
        return self.attack.steps + 1  # its steepness

    def attacked(self, context: Context, learner: Learner, batch: Batch) -> Images:
        student, anchor = learner.frozen.view("features"), _anchor(learner, batch)
        steepness = input_gradient(student, batch.images, anchor, squared_distance).flatten(1).norm(dim=1)
        scale = self.shares(context, steepness)
        return self.from_beside(context, student, batch.images, anchor, raising=squared_distance, scale=scale)

    def shares(self, context: Context, steepness: PerImage) -> PerImage:
        """Return w_i, float32 [batch] of mean 1 over the whole batch, for the gradient norms g_i."""
        steepness = steepness.clamp_min(_TINY)
        shares = (context.batch_mean(steepness) / steepness).clamp(*(float(bound) for bound in self.clip))
        return shares / context.batch_mean(shares)

    def loss(self, context: Context, learner: Learner, batch: Batch, attacked: Images) -> Loss:
        """Return the mean distance; training accuracy is that on the attacked images."""
        features = learner.model.features(attacked)
        value = squared_distance(features, _anchor(learner, batch)).mean()
        with torch.no_grad():
            logits = learner.model.decision(learner.model.raw_outputs(features))
        return Loss(value, logits)


def _anchor(learner: Learner, batch: Batch) -> Tensor:
    assert learner.teacher is not None  # the configuration is refused without one
    with torch.no_grad():
        anchor: Tensor = learner.teacher.view("features")(batch.images)
    return anchor
