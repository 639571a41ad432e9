"""Two-hot targets around another objective, from some point of the training on: DUCAT, Splitting the Difference."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn import functional as F

from generalist.config import ModelOptions, ObjectiveOptions, Schedule
from generalist.config.section import nearest
from generalist.models import LossView, Role
from generalist.objectives.contract import Around, Context, Learner, Loss, Objective, label_loss
from generalist.tensors import Batch, Images, Labels

_RAW = "raw"


class TwoHot(Around):
    """The base's loss, its cross-entropy with labels replaced by 1/2 (CE(f(x), t_natural) + CE(f(x'), t_adversarial)).

    The targets t are those of the head (DUCAT, arXiv 2410.12671, and its published code), f are the raw outputs. A base
    without an attack keeps the natural half alone.
    """

    name: Literal["two_hot"]
    share: Schedule = Field(
        Schedule.model_validate(1),
        description="of the two-hot targets in the label loss, over progress: [[0.8, 0], [0.8, 1]] is the base alone"
        " for four fifths of the training, 1 is from the start on",
    )
    attack_view: str = Field(
        _RAW,
        description="what training attacks see: raw outputs as published, or a view of the head such as decision,"
        " which knows the recovery",
    )

    @field_validator("share")
    @classmethod
    def _is_a_share(cls, share: Schedule) -> Schedule:
        low, high = share.extremes()
        if low < 0 or high > 1:
            raise ValueError("it is a share: let its values lie between 0 and 1")
        if high == 0:
            raise ValueError("it is 0 throughout: name the base alone as the objective, or raise it somewhere")
        return share

    @field_validator("base")
    @classmethod
    def _has_a_label_loss(cls, base: ObjectiveOptions) -> ObjectiveOptions:
        if not base.has_label_loss or not isinstance(base, Objective):
            raise ValueError(f"{base.name} has no cross-entropy with labels that targets could replace: name another")
        return base

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]  # those of this base
        return self.base.needs

    def check_model(self, model: ModelOptions) -> None:
        super().check_model(model)
        head = model.head(2)
        if head.outputs == head.classes:
            raise ValueError(
                f"name is {self.name}, but the head {model.head.name} has no dummy classes for its targets: set"
                " model.head to {name: dummy}, or name the base alone"
            )
        views = [_RAW, *(name for name, view in head.views().items() if not isinstance(view, LossView))]
        if self.attack_view not in views:
            raise ValueError(
                f"attack_view is '{self.attack_view}', which the head {model.head.name} does not have;"
                f" {nearest(self.attack_view, views)}"
            )

    def attacked(self, context: Context, learner: Learner, batch: Batch) -> Images:
        seen = replace(learner, frozen=learner.frozen.view(self.attack_view))
        return self.own_base.attacked(context, seen, batch)

    def loss(self, context: Context, learner: Learner, batch: Batch, attacked: Images) -> Loss:
        """Return the base's loss with these targets, as far as `share` says."""
        share = context.at(self.share)
        if not share:
            return self.own_base.loss(context, learner, batch, attacked)
        model, attacks = learner.model, bool(self.trains_against)

        def two_hot_loss(
            outputs: Mapping[Role, Tensor], labels: Labels, *, of: Role, label_smoothing: float = 0.0
        ) -> Tensor:
            plain, halves = label_loss(outputs, labels, of=of, label_smoothing=label_smoothing), dict(outputs)
            if attacks and "natural" not in halves:
                halves["natural"] = model(batch.images)
            two_hot = torch.stack(
                [
                    F.cross_entropy(raw, model.targets(labels, role), label_smoothing=label_smoothing)
                    for role, raw in halves.items()
                ]
            ).mean()
            return two_hot if share == 1 else torch.lerp(plain, two_hot, share)

        return self.own_base.loss(context, replace(learner, label_loss=two_hot_loss), batch, attacked)
